import { afterAll, beforeAll } from "vitest";
import { tabsContract, type PageUnderTest } from "../test/tabs/contract.js";
import { launchChromium, type Chromium } from "./chromium.js";
import { servePages, type Pages } from "./pages.js";
import { tabsIn } from "./remote.js";

let chromium: Chromium;
let pages: Pages;
beforeAll(async () => {
  [chromium, pages] = await Promise.all([launchChromium(), servePages()]);
});
afterAll(async () => {
  await chromium.close();
  await pages.close();
});

let origins = 0;

tabsContract("Chromium", async () => {
  const scope = `${origins++}/`;
  return () => open(scope);
});

async function open(scope: string): Promise<PageUnderTest> {
  const page = await chromium.context.newPage();
  await page.goto(pages.url);
  const crash = async (): Promise<void> => {
    const crashed = page.waitForEvent("crash");
    const session = await chromium.context.newCDPSession(page);
    // Whoever crashes does not answer.
    void session.send("Page.crash").catch(() => undefined);
    await crashed;
    await page.close();
  };
  return { tabs: await tabsIn(page, scope), close: () => page.close(), crash };
}
