/** The pictures of README.md, as the page is now: `npm run screenshots`. */
import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { launchChromium, type Chromium } from "../../typescript/browser/chromium";
import { Server } from "./server";
import { Window } from "./window";

const FOLDER = join(import.meta.dirname, "../screenshots");

/** Pictures are loaded with the README, so they are small. */
const BYTES_MAX = 200_000;

const DOCUMENT = "team/launch";

const TEXT = `# The launch, on one page

We ship on Thursday. What has to be true by then stands in this text; what somebody has to do is a card beside it.

- The announcement has a first draft. Bo reads it tonight.
- The figures in the table are from Monday, and are measured again before anybody quotes them.

## If the network goes away

Go on writing. It is kept in this browser, and comes together with what the others wrote when you are back.`;

const CARDS = ["Read the announcement", "Measure again on the quiet machine", "Ask Cleo for small screenshots", "Book the table for Friday"];

let server: Server;
let browsers: Chromium[] = [];

beforeAll(async () => {
  [server, ...browsers] = await Promise.all([Server.locked(), launchChromium(), launchChromium(), launchChromium()]);
  await mkdir(FOLDER, { recursive: true });
});
afterAll(async () => {
  await Promise.all(browsers.map((browser) => browser.close()));
  await server?.close();
});

async function open(index: number, name: string): Promise<Window> {
  const browser = browsers[index];
  if (browser === undefined) throw new Error("the browser has not started");
  return Window.open(browser.context, server, DOCUMENT, await server.token({ sub: name, name, docs: ["**=write"] }));
}

async function take({ page }: Window, name: string): Promise<void> {
  const path = join(FOLDER, `${name}.png`);
  await page.screenshot({ path });
  expect((await stat(path)).size, name).toBeLessThan(BYTES_MAX);
}

test("the page at a desk, its history, and on a phone by night", async () => {
  const ann = await open(0, "Ann Ekman");
  await ann.page.setViewportSize({ width: 1200, height: 700 });
  await ann.page.emulateMedia({ colorScheme: "light" });
  for (const card of CARDS) {
    await ann.page.getByLabel("Add a card").fill(card);
    await ann.page.keyboard.press("Enter");
  }
  await ann.page.getByRole("checkbox").first().check();
  for (const line of TEXT.split(/(?<=\n)/)) await ann.type(line, "end");
  await ann.saved();

  const [bo, cleo] = [await open(1, "Bo Lindqvist"), await open(2, "Cleo Marsh")];
  await bo.contains("when you are back.");
  await cleo.contains("when you are back.");
  await cleo.page.locator(".card textarea").nth(2).focus();
  await bo.editor.focus();
  await bo.page.keyboard.press("Control+Home");
  for (let line = 0; line < 5; line += 1) await bo.page.keyboard.press("ArrowDown");
  await bo.page.keyboard.press("Home");
  for (let letter = 0; letter < 18; letter += 1) await bo.page.keyboard.press("ArrowRight");
  for (let letter = 0; letter < 11; letter += 1) await bo.page.keyboard.press("Shift+ArrowRight");
  await ann.editor.blur();
  await ann.page.mouse.move(0, 0);
  await ann.page.locator(".cm-other-selection").waitFor();
  await ann.page.locator(".card-writer:visible").waitFor();
  await take(ann, "desk");

  await ann.page.getByRole("button", { name: "History" }).click();
  for (let page = 0; page < 3; page += 1) await ann.page.getByLabel("Changes").press("PageDown");
  await ann.page.getByLabel("The text as it was").waitFor();
  await take(ann, "history");
  await ann.page.keyboard.press("Escape");

  await bo.page.setViewportSize({ width: 390, height: 844 });
  await bo.page.emulateMedia({ colorScheme: "dark" });
  await bo.switchNetwork("off");
  await bo.type(" Even on a train.", "end");
  await bo.page.locator('.light[data-safety="local"]').waitFor();
  await bo.editor.blur();
  await bo.page.evaluate(() => scrollTo(0, 0));
  await take(bo, "phone");
});
