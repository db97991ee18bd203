/** Without a network, without a server, and back. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { launchChromium, type Chromium } from "../../typescript/browser/chromium";
import { Server } from "./server";
import { Window } from "./window";

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

test("offline edits of two, one of whom reloads, come together", async () => {
  const [first, second] = await Promise.all([Window.open(ann.context, server, "trip"), Window.open(bo.context, server, "trip")]);
  await first.type("The trip\n", "end");
  await second.holds("The trip\n");
  await first.saved();

  await Promise.all([first.switchNetwork("off"), second.switchNetwork("off")]);
  await first.type("Ann packs.\n", "end");
  await second.type("Plan: ", "start");
  await first.kept();
  await first.page.reload();
  await first.holds("The trip\nAnn packs.\n");
  expect(await first.shown()).toBe("The trip\nAnn packs.\n");
  await first.page.getByRole("switch", { name: "Online", checked: false }).waitFor();
  await first.page.locator('.light[data-safety="local"]').waitFor();
  await first.type("She reads.", "end");

  await Promise.all([first.switchNetwork("on"), second.switchNetwork("on")]);
  const text = "Plan: The trip\nAnn packs.\nShe reads.";
  await Promise.all([first.holds(text), second.holds(text), first.saved(), second.saved()]);
  await Promise.all([first.page.close(), second.page.close()]);
});

test("a page that is left in the middle of a word has the word again", async () => {
  const window = await Window.open(ann.context, server, "hurry");
  await window.type("Said: ", "end");
  await window.saved();
  await window.switchNetwork("off");
  let written = "Said: ";
  for (const word of ["one", "two", "three", "four", "five"]) {
    await window.type(word, "end");
    await window.page.reload();
    written += word;
    await window.holds(written);
    await window.ready();
  }
  await window.switchNetwork("on");
  await window.saved();
  await window.page.close();
});

test("the page opens and is edited while the server is away", async () => {
  const first = await Window.open(ann.context, server, "kept");
  await first.type("Written before. ", "end");
  await first.saved();
  await first.page.evaluate(() => navigator.serviceWorker.ready.then(() => true));

  await server.kill();
  await first.page.reload();
  await first.holds("Written before. ");
  await first.type("Written meanwhile.", "end");
  await first.kept();
  await first.page.reload();
  await first.holds("Written before. Written meanwhile.");

  await server.start();
  await first.saved();
  const second = await Window.open(bo.context, server, "kept");
  await second.holds("Written before. Written meanwhile.");
  await Promise.all([first.page.close(), second.page.close()]);
});

test("what is acknowledged outlives a kill of the server, and what is not is kept by the page", async () => {
  const [first, second] = await Promise.all([Window.open(ann.context, server, "crash"), Window.open(bo.context, server, "crash")]);
  let written = "";
  let acknowledged = "";
  for (const round of [1, 2, 3]) {
    const part = `Round ${round} before. `;
    await first.type(part, "end");
    written += part;
    await first.saved();
    acknowledged = written;
    // Killed while keys are being pressed: some of them are on their way.
    const more = `Round ${round} in the middle of it. `;
    await Promise.all([first.type(more, "end", 5), server.kill()]);
    written += more;
    await first.holds(written);
    await server.start();
    await second.contains(acknowledged);
  }
  await Promise.all([first.holds(written), second.holds(written), first.saved(), second.saved()]);
  expect(await second.shown()).toBe(written);
  await Promise.all([first.page.close(), second.page.close()]);
});
