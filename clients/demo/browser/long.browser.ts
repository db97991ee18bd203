/** A document of 260,000 keystrokes: it opens with progress, and once it is open the page stays responsive while others type. */
import * as Automerge from "@automerge/automerge";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { launchChromium, type Chromium } from "../../typescript/browser/chromium";
import { Client, type DocHandle } from "../../typescript/src/index";
import { nodeTransport } from "../../typescript/src/node/index";
import type { Board } from "../src/model";
import { emptyBoard, writeLong } from "./long";
import { Server } from "./server";
import { Window } from "./window";

/** No task of the page is to take longer. */
const TASK_MS = 200;

/** The bound of the test: a busy machine is slower than the one that the goal was set for. */
const SLACK = 10;

/** Others' edits, at 20 a second for 10 seconds. */
const EDITS = 200;
const EDITS_EVERY_MS = 50;

let server: Server;
let ann: Chromium;
let client: Client;
let handle: DocHandle<Board>;
let written: Automerge.Doc<Board>;

beforeAll(async () => {
  [server, ann] = await Promise.all([Server.open(), launchChromium()]);
  written = await writeLong(emptyBoard());
  client = new Client({ url: server.url, transport: nodeTransport() });
  handle = client.open<Board>("long");
  await handle.whenReady();
  handle.merge(written);
  await handle.whenDurable();
});
afterAll(async () => {
  await client?.close();
  await ann?.close();
  await server?.close();
});

/** Keeps what the page says while it opens, and how long its tasks take. */
async function watch(page: Page): Promise<void> {
  await page.addInitScript(() => {
    const kept = { said: new Set<string>(), tasks: [] as { start: number; duration: number }[] };
    Object.assign(globalThis, { kept });
    new MutationObserver(() => {
      const progress = document.querySelector("progress");
      if (progress !== null && !progress.hidden) kept.said.add(`${progress.value} of ${progress.max}`);
    }).observe(document, { subtree: true, childList: true, attributes: true });
    new PerformanceObserver((list) => {
      for (const { startTime, duration } of list.getEntries()) kept.tasks.push({ start: startTime, duration });
    }).observe({ type: "longtask", buffered: true });
  });
}

interface Kept {
  readonly kept: { readonly said: Set<string>; readonly tasks: { readonly start: number; readonly duration: number }[] };
}

test("a long document opens with progress and stays responsive while others type", async () => {
  const blank = await ann.context.newPage();
  await watch(blank);
  const window = await Window.take(blank, server, "long");
  await window.ready();
  await window.holds(written.text);
  const said = await blank.evaluate(() => [...(globalThis as unknown as Kept).kept.said]);
  const editableMs = await window.editableAfterMs();
  console.log(`figure: 260,000 keystrokes are editable ${Math.round(editableMs)} ms after the page's load began; progress: ${said.join(", ")}`);
  expect(said.length).toBeGreaterThan(0);

  const from = await blank.evaluate(() => performance.now());
  for (let edit = 0; edit < EDITS; edit += 1) {
    const next = new Promise((resolve) => setTimeout(resolve, EDITS_EVERY_MS));
    handle.change((board) => Automerge.splice(board, ["text"], 1000 + edit, 0, "x"));
    await next;
  }
  await window.holds(handle.doc().text);
  const tasks = await blank.evaluate(
    (since) => (globalThis as unknown as Kept).kept.tasks.filter(({ start }) => start >= since).map(({ duration }) => duration),
    from,
  );
  const longest = Math.max(0, ...tasks);
  const over = tasks.filter((duration) => duration > TASK_MS).length;
  console.log(
    `figure: longest task ${Math.round(longest)} ms, ${tasks.length} over 50 ms, ${over} over ${TASK_MS} ms, while ${EDITS} edits came`,
  );
  expect(longest).toBeLessThan(Math.max(SLACK * TASK_MS, SLACK * (await referenceMs(written))));

  await window.type("Typed here. ", "start");
  await window.saved();
  await blank.close();
});

/** What it takes here to bring one change into that document, beside everything else that this machine does. */
async function referenceMs(board: Automerge.Doc<Board>): Promise<number> {
  const changed = Automerge.change(Automerge.clone(board), (now) => Automerge.splice(now, ["text"], 0, 0, "x"));
  const changes = Automerge.getChanges(board, changed);
  const copy = Automerge.clone(board);
  const before = performance.now();
  Automerge.applyChanges(copy, changes);
  return performance.now() - before;
}
