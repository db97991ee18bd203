/** What the server sends for the page, how soon it can be edited, cold and warm, and what coming back costs. */
import * as Automerge from "@automerge/automerge";
import { afterAll, beforeAll, expect, test } from "vitest";
import { launchChromium, type Chromium } from "../../typescript/browser/chromium";
import { Client } from "../../typescript/src/index";
import { nodeTransport } from "../../typescript/src/node/index";
import { EMPTY, type Board } from "../src/model";
import { Server } from "./server";
import { Window } from "./window";

/** What 1,000 keystrokes may cost at most: less than what they are as single changes, uncompressed. */
const KEYSTROKES = 1000;
const BYTES_MAX = 120_000;

let server: Server;
let ann: Chromium;

beforeAll(async () => {
  [server, ann] = await Promise.all([Server.open(), launchChromium()]);
});
afterAll(async () => {
  await ann?.close();
  await server?.close();
});

test("the page comes packed, its parts for good, and may load nothing from elsewhere", async () => {
  const page = await fetch(`${server.url}/`);
  const policy = page.headers.get("content-security-policy") ?? "";
  expect(policy).toContain("default-src 'none'");
  expect(policy).not.toMatch(/'unsafe-inline'|'unsafe-eval'|https?:|\*/);
  expect(page.headers.get("cache-control")).toBe("no-cache");
  const tag = page.headers.get("etag") ?? "";
  expect((await fetch(`${server.url}/`, { headers: { "if-none-match": tag } })).status).toBe(304);
  const parts = [...(await page.text()).matchAll(/(?:src|href)="\.\/(assets\/[^"]+)"/g)].map(([, path]) => path);
  expect(parts.length).toBeGreaterThan(2);
  for (const path of parts) {
    const part = await fetch(`${server.url}/${path}`, { headers: { "accept-encoding": "gzip" } });
    expect(part.status).toBe(200);
    expect(part.headers.get("cache-control"), path).toContain("immutable");
    expect(part.headers.get("content-encoding"), path).toBe("gzip");
  }
  expect((await fetch(`${server.url}/assets/no-such.js`)).status).toBe(404);
});

test("a page that was here before fetches none of its parts again", async () => {
  const window = await Window.open(ann.context, server, "opening");
  const cold = await window.editableAfterMs();
  await window.type("Something to keep", "end");
  await window.saved();
  await window.page.evaluate(() => navigator.serviceWorker.ready.then(() => true));
  await window.page.reload();
  await window.holds("Something to keep");
  await window.ready();
  const warm = await window.editableAfterMs();
  const fetched = await window.page.evaluate(() => {
    const resources = performance.getEntriesByType("resource") as PerformanceResourceTiming[];
    return resources.filter(({ name, transferSize }) => name.includes("/assets/") && transferSize > 0).map(({ name }) => name);
  });
  console.log(`figure: from the load's begin to editable: cold ${Math.round(cold)} ms, warm ${Math.round(warm)} ms`);
  expect(fetched).toEqual([]);
  await window.page.close();
});

test("the address and the name lead from one document to another", async () => {
  const window = await Window.open(ann.context, server, "first/one");
  const { page } = window;
  await window.type("This is the first", "end");
  await page.getByLabel("Document", { exact: true }).fill("second");
  await page.keyboard.press("Enter");
  await page.waitForURL(`${server.url}/#second`);
  await window.holds("");
  await window.type("This is the second", "end");
  await page.goBack();
  await window.holds("This is the first");
  expect(await page.getByLabel("Document", { exact: true }).inputValue()).toBe("first/one");
  expect(await window.shown()).toBe("This is the first");
  await page.getByLabel("Document", { exact: true }).fill("not a name");
  await page.keyboard.press("Enter");
  expect(page.url()).toBe(`${server.url}/#first/one`);
  await page.goto(`${server.url}/?doc=second`);
  await window.holds("This is the second");
  expect(page.url()).toBe(`${server.url}/#second`);
  await page.close();
});

test("the past is shown, and brought back for everybody", async () => {
  const window = await Window.open(ann.context, server, "past");
  const { page } = window;
  await window.type("# What was", "end");
  await page.getByLabel("Add a card").fill("A card");
  await page.keyboard.press("Enter");
  await window.saved();
  await page.getByRole("button", { name: "History" }).click();
  const slider = page.getByLabel("Changes");
  await page.getByLabel("The text as it was").getByText("# What was").waitFor();
  expect(await page.getByRole("button", { name: "Bring back" }).isDisabled()).toBe(true);
  await slider.press("ArrowLeft");
  await page.getByLabel("The cards as they were").getByText("A card").waitFor({ state: "detached" });
  expect(await page.getByLabel("The text as it was").innerText()).toContain("# What was");
  await window.holds("# What was");
  await page.getByRole("button", { name: "Bring back" }).click();
  await window.saved();
  expect(await window.cards()).toEqual([]);
  await window.holds("# What was");
  await page.close();
});

test("coming back costs what was missed", async () => {
  const client = new Client({ url: server.url, transport: nodeTransport() });
  const handle = client.open<Board>("missed", { initial: EMPTY });
  await handle.whenReady();
  handle.change((board) => Automerge.splice(board, ["text"], 0, 0, "A text that was there before. ".repeat(500)));
  await handle.whenDurable();
  const { text } = handle.doc();

  const window = await Window.open(ann.context, server, "missed");
  await window.holds(text);
  // Merged is what has rested for two seconds; from then on the server sends it as a bundle.
  for (const [pauseMs, when] of [[0, "at once"], [6_000, "some seconds later"]] as const) {
    await window.switchNetwork("off");
    const before = await window.figures();
    for (let keystroke = 0; keystroke < KEYSTROKES; keystroke += 1) {
      handle.change((board) => Automerge.splice(board, ["text"], text.length + keystroke, 0, "abcdefghij"[keystroke % 10]));
    }
    await handle.whenDurable();
    await window.page.waitForTimeout(pauseMs);
    await window.switchNetwork("on");
    await window.holds(handle.doc().text);
    const after = await window.figures();
    const bytes = after.bytesIn - before.bytesIn;
    console.log(`figure: coming back ${KEYSTROKES} edits behind, ${when}: ${bytes} bytes in, ${after.bytesOut - before.bytesOut} bytes out`);
    expect(bytes).toBeLessThan(BYTES_MAX);
    await window.saved();
  }
  await client.close();
  await window.page.close();
});
