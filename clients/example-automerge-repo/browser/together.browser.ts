/** Two browsers on one task list, through the server; the server restarts in the middle. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { preview, type PreviewServer } from "vite";
import type { Page } from "playwright-core";
import { TestServer } from "../../interop/test/server.js";
import { launchChromium, type Chromium } from "../../typescript/browser/chromium.js";

let server: TestServer;
let site: PreviewServer;
let ann: Chromium;
let bo: Chromium;

beforeAll(async () => {
  server = await TestServer.start();
  site = await preview({
    root: new URL("..", import.meta.url).pathname,
    preview: { port: 0, host: "127.0.0.1" },
    logLevel: "error",
  });
  [ann, bo] = await Promise.all([launchChromium(), launchChromium()]);
});

afterAll(async () => {
  await Promise.all([ann?.close(), bo?.close()]);
  await site?.close();
  await server?.remove();
});

async function open(browser: Chromium, hash = ""): Promise<Page> {
  const page = await browser.context.newPage();
  page.setDefaultTimeout(120_000);
  const address = site.httpServer.address();
  if (address === null || typeof address === "string") throw new Error("the site has a port");
  await page.goto(`http://127.0.0.1:${address.port}/?server=${encodeURIComponent(server.url)}${hash}`);
  await page.getByRole("heading", { name: "Tasks" }).waitFor();
  return page;
}

async function add(page: Page, title: string): Promise<void> {
  await page.getByLabel("A new task").fill(title);
  await page.getByRole("button", { name: "Add" }).click();
}

test("what one adds the other sees, and ticks off, also over a restart of the server", async () => {
  const mine = await open(ann);
  await add(mine, "Change one URL");
  const his = await open(bo, new URL(mine.url()).hash);
  await his.getByText("Change one URL").waitFor();
  await Promise.all([mine, his].map((page) => page.getByText("Others here: 1").waitFor()));
  await his.getByRole("checkbox").first().check();
  await mine.locator("input[type=checkbox]:checked").waitFor();
  await server.end("SIGTERM");
  await add(mine, "Written offline");
  await server.run();
  await his.getByText("Written offline").waitFor();
  expect(await his.getByRole("listitem").count()).toBe(2);
});
