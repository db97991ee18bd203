/** Several windows on one document: two people with a browser each, and three tabs of one. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { launchChromium, type Chromium } from "../../typescript/browser/chromium";
import { Server } from "./server";
import { Window } from "./window";

let server: Server;
let [ann, bo]: Chromium[] = [];

beforeAll(async () => {
  [server, ann, bo] = await Promise.all([Server.open(), launchChromium(), launchChromium()]);
});
afterAll(async () => {
  await Promise.all([ann?.close(), bo?.close()]);
  await server?.close();
});

function contexts(): [Chromium["context"], Chromium["context"]] {
  if (ann === undefined || bo === undefined) throw new Error("the browsers have not started");
  return [ann.context, bo.context];
}

/** 200 keystrokes of which each is another letter than the one before. */
function typing(letters: string): string {
  return Array.from({ length: 200 }, (_none, index) => letters[index % letters.length]).join("");
}

test("two windows converge while both type", async () => {
  const [one, two] = contexts();
  const [first, second] = await Promise.all([Window.open(one, server, "typing"), Window.open(two, server, "typing")]);
  await first.type("\n\n", "start");
  await second.holds("\n\n");

  const [above, below] = [typing("abcdefghij "), typing("0123456789 ")];
  await Promise.all([first.type(above, "start", 50), second.type(below, "end", 50)]);

  const text = `${above}\n\n${below}`;
  await Promise.all([first.holds(text), second.holds(text), first.saved(), second.saved()]);
  expect(await first.shown()).toBe(text);
  expect(await second.shown()).toBe(text);
  await Promise.all([first.page.close(), second.page.close()]);
});

test("each sees the other's name, caret and selection, and cards come and go in both", async () => {
  const [one, two] = contexts();
  const [first, second] = await Promise.all([Window.open(one, server, "people"), Window.open(two, server, "people")]);
  await first.page.getByRole("button", { name: /change your name/ }).click();
  await first.page.getByLabel("How the others see you").fill("Ann Example");
  await first.page.getByRole("button", { name: "Keep" }).click();
  await first.type("Hello there", "end");
  await second.holds("Hello there");
  await second.page.locator(".cm-other-caret").getByText("Ann Example").waitFor({ state: "attached" });
  await second.page.getByTitle("Ann Example").waitFor();
  await first.page.keyboard.press("Control+Shift+ArrowLeft");
  await second.page.locator(".cm-other-selection").getByText("there").waitFor();

  for (const text of ["First", "Second"]) {
    await first.page.getByLabel("Add a card").fill(text);
    await first.page.keyboard.press("Enter");
  }
  await second.page.getByRole("button", { name: "Move up" }).nth(1).click();
  await second.page.getByRole("checkbox").first().check();
  await expect.poll(() => first.cards(), POLL).toEqual(["Second", "First"]);
  await first.page.getByRole("checkbox", { name: "Done: Second", checked: true }).waitFor();
  await first.page.locator(".card textarea").first().fill("Second, longer");
  await expect.poll(() => second.cards(), POLL).toEqual(["Second, longer", "First"]);
  await second.page.getByText("Ann Example", { exact: true }).last().waitFor();
  await first.page.getByRole("button", { name: "Delete" }).last().click();
  await expect.poll(() => second.cards(), POLL).toEqual(["Second, longer"]);

  await first.page.close();
  await second.page.locator(".cm-other-caret").waitFor({ state: "detached" });
  await second.page.close();
});

test("three tabs of one browser share a document, online and off", async () => {
  const [one] = contexts();
  const tabs = await Promise.all([1, 2, 3].map(() => Window.open(one, server, "tabs")));
  for (const [index, tab] of tabs.entries()) {
    const former = Array.from({ length: index }, (_none, number) => `[tab ${number}]`).join("");
    await tab.holds(former);
    await tab.type(`[tab ${index}]`, "end");
  }
  await Promise.all(tabs.map((tab) => tab.holds("[tab 0][tab 1][tab 2]")));

  for (const tab of tabs) await tab.switchNetwork("off");
  await tabs[0]?.type("offline ", "start");
  await Promise.all(tabs.map((tab) => tab.holds("offline [tab 0][tab 1][tab 2]")));
  await tabs[2]?.type(" too", "end");
  await Promise.all(tabs.map((tab) => tab.holds("offline [tab 0][tab 1][tab 2] too")));
  for (const tab of tabs) await tab.switchNetwork("on");
  await Promise.all(tabs.map((tab) => tab.saved()));

  const [, two] = contexts();
  const other = await Window.open(two, server, "tabs");
  await other.holds("offline [tab 0][tab 1][tab 2] too");
  await Promise.all([...tabs, other].map((tab) => tab.page.close()));
});

const POLL = { timeout: 120_000 };
