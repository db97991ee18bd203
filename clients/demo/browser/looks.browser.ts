/** For everybody: with the keyboard alone, on a phone, by day and by night, and what axe-core finds. */
import axe from "axe-core";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { launchChromium, type Chromium } from "../../typescript/browser/chromium";
import { Server } from "./server";
import { Window } from "./window";

const PHONE = { width: 390, height: 844 };
const DESK = { width: 1200, height: 760 };

let server: Server;
let ann: Chromium;
let bo: Chromium;

beforeAll(async () => {
  [server, ann, bo] = await Promise.all([Server.open(), launchChromium(), launchChromium()]);
});
afterAll(async () => {
  await Promise.all([ann?.close(), bo?.close()]);
  await server?.close();
});

let window: Window;
let other: Window;
let run = 0;

/** Two people on one document with everything in it, so that all there is can be seen. */
beforeEach(async () => {
  run += 1;
  [window, other] = await Promise.all([
    Window.open(ann.context, server, `looks-${run}`),
    Window.open(bo.context, server, `looks-${run}`),
  ]);
  await window.type("# A heading\n\n- An item\n\nAnd a text that is long enough to need a second line on a phone.", "end");
  await window.page.getByLabel("Add a card").fill("A card");
  await window.page.keyboard.press("Enter");
  await window.saved();
  await other.contains("second line");
  await other.type("Bo's. ", "end");
  await window.contains("Bo's. ");
  await window.page.locator(".cm-other-caret").waitFor();
  return async () => {
    await Promise.all([window.page.close(), other.page.close()]);
  };
});

async function audit(page: Page, what: string): Promise<void> {
  await page.evaluate(axe.source);
  const found = await page.evaluate(async () => {
    const { violations } = await (globalThis as unknown as { axe: typeof axe }).axe.run();
    return violations.map(({ id, impact, nodes }) => ({
      id,
      impact,
      at: nodes.map(({ target }) => target.join(" ")),
      why: nodes.map(({ html, failureSummary }) => `${html.slice(0, 200)} ${failureSummary}`),
    }));
  });
  const serious = found.filter(({ impact }) => impact === "serious" || impact === "critical");
  expect(serious, what).toEqual([]);
  if (found.length > 0) console.log(`axe-core, ${what}: ${found.map(({ id, impact }) => `${id} (${impact})`).join(", ")}`);
}

test("axe-core finds nothing serious, by day and by night, at a desk and on a phone", async () => {
  const { page } = window;
  for (const colorScheme of ["light", "dark"] as const) {
    for (const size of [DESK, PHONE]) {
      const what = `${colorScheme}, ${size.width} wide`;
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize(size);
      await audit(page, what);
      await page.getByRole("button", { name: "History" }).click();
      await page.getByLabel("The text as it was").getByText("second line").waitFor();
      await audit(page, `${what}, history`);
      await page.getByRole("button", { name: "History" }).click();
      await page.getByRole("button", { name: /change your name/ }).click();
      await audit(page, `${what}, one's name`);
      await page.keyboard.press("Escape");
      await window.switchNetwork("off");
      await window.type("x", "end");
      await page.locator('.light[data-safety="local"]').waitFor();
      await audit(page, `${what}, offline`);
      await window.switchNetwork("on");
      await window.saved();
    }
  }
});

test("axe-core finds nothing serious where the text and the cards are longer than the window", async () => {
  const long = await Window.open(ann.context, server, "longer");
  const { page } = long;
  await page.setViewportSize(PHONE);
  await long.type(Array.from({ length: 60 }, (_none, line) => `line ${line}`).join("\n"), "end");
  for (let card = 0; card < 12; card += 1) {
    await page.getByLabel("Add a card").fill(`Card ${card}`);
    await page.keyboard.press("Enter");
  }
  await long.saved();
  await audit(page, "a long document");
  await page.getByRole("button", { name: "History" }).click();
  await page.getByLabel("The text as it was").getByText("line 59").waitFor();
  await audit(page, "the history of a long document");
  await page.close();
});

test("everything is done with the keyboard alone", async () => {
  const { page } = window;
  const { keyboard } = page;
  const focused = (): Promise<string> =>
    page.evaluate(() => {
      let element = document.activeElement;
      while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
      return element?.getAttribute("aria-label") ?? element?.textContent?.trim() ?? "";
    });
  const tabTo = async (name: string | RegExp, key = "Tab"): Promise<void> => {
    const isThere = (now: string): boolean => (typeof name === "string" ? now === name : name.test(now));
    const passed: string[] = [];
    for (let now = ""; !isThere(now); passed.push(now)) {
      if (passed.length > 40) throw new Error(`no ${String(name)} among ${passed.join(", ")}`);
      await keyboard.press(key);
      now = await focused();
    }
  };

  await page.getByRole("link", { name: "Syncline" }).focus();
  await tabTo("Shared text");
  await keyboard.press("Control+End");
  await keyboard.type("By hand.");
  await tabTo("Add a card");
  await keyboard.type("Another card");
  await keyboard.press("Enter");
  await expect.poll(() => other.cards(), POLL).toEqual(["A card", "Another card"]);
  await tabTo("Card", "Shift+Tab");
  await keyboard.press("Alt+ArrowUp");
  await expect.poll(() => other.cards(), POLL).toEqual(["Another card", "A card"]);
  expect(await focused()).toBe("Card");
  await keyboard.press("End");
  await keyboard.type("!");
  await keyboard.press("Enter");
  await keyboard.type("Between");
  await expect.poll(() => other.cards(), POLL).toEqual(["Another card!", "Between", "A card"]);
  await tabTo(/^Delete: /);
  await keyboard.press("Enter");
  await expect.poll(() => other.cards(), POLL).toEqual(["Another card!", "A card"]);
  await tabTo(/^Done: A card/, "Shift+Tab");
  await keyboard.press("Space");
  await other.page.getByRole("checkbox", { name: "Done: A card", checked: true }).waitFor();

  await tabTo("History");
  await keyboard.press("Enter");
  await expect.poll(focused, POLL).toBe("Changes");
  const text = await window.text();
  await keyboard.press("Home");
  await page.getByLabel("The text as it was").getByText("second line").waitFor({ state: "detached" });
  expect(await window.text()).toBe(text);
  await keyboard.press("Escape");
  expect(await focused()).toBe("History");

  await tabTo("Online", "Shift+Tab");
  await keyboard.press("Space");
  await page.getByRole("switch", { name: "Online", checked: false }).waitFor();
  await keyboard.press("Space");
  await window.saved();
});

test("on a phone everything fits into its width, and nothing is too small to be touched", async () => {
  const { page } = window;
  await page.setViewportSize(PHONE);
  const widths = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  expect(widths).toEqual([PHONE.width, PHONE.width]);
  for (const place of [window.editor, page.getByRole("button", { name: "Delete" }), page.getByLabel("Add a card"), window.light]) {
    const box = await place.boundingBox();
    expect(box?.x).toBeGreaterThanOrEqual(0);
    expect((box?.x ?? 0) + (box?.width ?? Infinity)).toBeLessThanOrEqual(PHONE.width);
  }
  const small = await page.locator("button:visible, input:visible, textarea:visible").evaluateAll((controls) =>
    controls.filter((control) => {
      const { width, height } = control.getBoundingClientRect();
      return control.matches(".done") ? width < 20 : width < 24 || height < 24;
    }).map((control) => control.outerHTML),
  );
  expect(small).toEqual([]);
  await page.getByLabel("Add a card").fill("From a phone");
  await page.keyboard.press("Enter");
  await expect.poll(() => other.cards(), POLL).toEqual(["A card", "From a phone"]);
});

const POLL = { timeout: 120_000 };
