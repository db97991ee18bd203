/** automerge-repo's clients of two ages in Chromium: together, late, offline, absent, long and many documents, presence. */
import { spawn } from "node:child_process";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { preview, type PreviewServer } from "vite";
import type { AutomergeUrl } from "@automerge/automerge-repo";
import type { Page } from "playwright-core";
import { launchChromium, type Chromium } from "../../typescript/browser/chromium.js";
import { VERSIONS, until, type Version } from "../test/peers.js";
import { BINARY, TestServer } from "../test/server.js";
import type {} from "./page.js";

let site: PreviewServer;
let browser: Chromium;
let server: TestServer;
let pages: Page[] = [];

beforeAll(async () => {
  const configFile = new URL("vite.config.ts", import.meta.url).pathname;
  site = await preview({ configFile, preview: { port: 0, host: "127.0.0.1" }, logLevel: "error" });
  browser = await launchChromium();
});

afterAll(async () => {
  await browser?.close();
  await site?.close();
});

beforeEach(async () => {
  server = await TestServer.start();
});

afterEach(async () => {
  await Promise.all(pages.map((page) => page.close()));
  pages = [];
  await server.remove();
});

async function open(version: Version): Promise<Page> {
  const page = await blank();
  await page.evaluate(([version, url]) => globalThis.tab.open(version ?? "", url ?? ""), [version, server.url]);
  return page;
}

async function openAs(peerId: string, comesBack: boolean): Promise<Page> {
  const page = await blank();
  const { url } = server;
  await page.evaluate(({ peerId, url, comesBack }) => globalThis.tab.openAs(peerId, url, comesBack), { peerId, url, comesBack });
  return page;
}

async function blank(): Promise<Page> {
  const page = await browser.context.newPage();
  pages.push(page);
  page.setDefaultTimeout(120_000);
  const address = site.httpServer.address();
  if (address === null || typeof address === "string") throw new Error("the site has a port");
  await page.goto(`http://127.0.0.1:${address.port}/`);
  await page.waitForFunction(() => globalThis.tab !== undefined);
  return page;
}

async function findSoon(page: Page, urls: AutomergeUrl[]): Promise<void> {
  await until(async () => (await page.evaluate((urls) => globalThis.tab.find(urls), urls)) === "found", "the document is found");
}

const create = (page: Page, count = 1): Promise<AutomergeUrl[]> => page.evaluate((count) => globalThis.tab.create(count), count);
const put = (page: Page, key: string): Promise<void> => page.evaluate((key) => globalThis.tab.put(key, "written"), key);

async function has(page: Page, ...keys: string[]): Promise<void> {
  const expected = JSON.stringify(Object.fromEntries(keys.sort().map((key) => [key, "written"])));
  await until(async () => JSON.stringify(await page.evaluate(() => globalThis.tab.items())) === expected, keys.join());
}

describe.each(VERSIONS)("a client of version %s in Chromium", (version) => {
  test("converges with another, a late one, and itself after a time offline", async () => {
    const [ada, bob] = [await open(version), await open(version)];
    const [absent] = ["automerge:2j9knpCseyhnK8izDmLpGP5WMdZQ" as AutomergeUrl];
    expect(await bob.evaluate((urls) => globalThis.tab.find(urls), [absent])).toContain("unavailable");
    const urls = await create(ada);
    await findSoon(bob, urls);
    await put(ada, "ada");
    await put(bob, "bob");
    await Promise.all([has(ada, "ada", "bob"), has(bob, "ada", "bob")]);

    await server.end("SIGTERM");
    await put(ada, "ada offline");
    await put(bob, "bob offline");
    await server.run();
    const late = await open(version);
    await findSoon(late, urls);
    const all = ["ada", "bob", "ada offline", "bob offline"];
    await Promise.all([ada, bob, late].map((page) => has(page, ...all)));
    await put(late, "late");
    await has(ada, ...all, "late");
    const [url] = urls;
    await isWatched(url ?? absent, '"late"');
  });

  test("gets a text of 260,000 characters, and goes on writing", async () => {
    const ada = await open("2.5.6");
    const url = await ada.evaluate(() => globalThis.tab.import(260));
    const bob = await open(version);
    await findSoon(bob, [url]);
    await until(async () => (await bob.evaluate(() => globalThis.tab.length())) === 260_000, "bob has all of it");
    await put(bob, "bob");
    await has(ada, "bob");
    await put(ada, "ada");
    await has(bob, "ada", "bob");
  });
});

test("what is written while the server is killed and started again comes together", async () => {
  const [ada, bob] = [await open("2.5.6"), await open("2.0.8")];
  await findSoon(bob, await create(ada));
  const write = (page: Page, name: string): Promise<number> => page.evaluate((name) => globalThis.tab.keepWriting(name, 3_000), name);
  const writing = Promise.all([write(ada, "ada"), write(bob, "bob")]);
  await until(async () => JSON.stringify(await ada.evaluate(() => globalThis.tab.items())).includes("bob"), "ada sees bob");
  await server.end("SIGKILL");
  await server.run();
  const [adas, bobs] = await writing;
  const keys = (name: string, count: number): string[] => Array.from({ length: count }, (_, number) => `${name} ${number}`);
  const all = [...keys("ada", adas), ...keys("bob", bobs)];
  await Promise.all([has(ada, ...all), has(bob, ...all)]);
});

test("a6 a second page with one peer id takes the first one's place", async () => {
  const [first, bob] = [await openAs("one-tab", false), await open("2.5.6")];
  const urls = await create(first);
  await findSoon(bob, urls);
  const second = await openAs("one-tab", true);
  await findSoon(second, urls);
  await until(async () => !(await first.evaluate(() => globalThis.tab.isConnected())), "the first one's connection ends");
  await put(second, "second");
  await has(bob, "second");
  await put(bob, "bob");
  await has(second, "bob", "second");
  expect(await first.evaluate(() => globalThis.tab.items())).toEqual({});
});

test("fifty documents at once, and clients of both versions on them", async () => {
  const [ada, bob] = [await open("2.5.6"), await open("2.0.8")];
  const urls = await create(ada, 50);
  await findSoon(bob, urls);
  await put(bob, "bob");
  await has(ada, "bob");
  await put(ada, "ada");
  await has(bob, "ada", "bob");
});

test("pages hear each other and see who is there", async () => {
  const [ada, bob] = [await open("2.5.6"), await open("2.5.6")];
  await findSoon(bob, await create(ada));
  const heard = (page: Page): Promise<unknown> => page.evaluate(() => globalThis.tab.heard());
  await ada.evaluate(() => globalThis.tab.broadcast({ wave: 1 }));
  await until(async () => JSON.stringify(await heard(bob)) === '[{"wave":1}]', "bob hears ada");
  expect(await heard(ada)).toEqual([]);
  const sees = (page: Page, states: string): Promise<void> =>
    until(async () => JSON.stringify(await page.evaluate(() => globalThis.tab.seen())) === states, states);
  await ada.evaluate(() => globalThis.tab.show(1));
  await bob.evaluate(() => globalThis.tab.show(2));
  await Promise.all([sees(ada, '[{"cursor":2}]'), sees(bob, '[{"cursor":1}]')]);
  await bob.evaluate(() => globalThis.tab.show(3));
  await sees(ada, '[{"cursor":3}]');
  await bob.evaluate(() => globalThis.tab.hide());
  await sees(ada, "[]");
});

/** A native client, of the binary, prints the document with this text in it. */
async function isWatched(url: AutomergeUrl, text: string): Promise<void> {
  const watcher = spawn(BINARY, ["watch", server.url.replace("/sync", ""), url.replace("automerge:", "")]);
  let printed = "";
  watcher.stdout.on("data", (piece: Buffer) => (printed += piece.toString()));
  try {
    await until(() => printed.includes(text), "the native client prints the document");
  } finally {
    watcher.kill();
  }
}
