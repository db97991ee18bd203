import { randomBytes as random } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Page } from "playwright-core";
import { StorageError } from "../src/storage/storage.js";
import { storageContract } from "../test/storage/contract.js";
import { launchChromium, type Chromium } from "./chromium.js";
import { servePages, type Pages } from "./pages.js";
import { storageIn, writeAtLast } from "./remote.js";

let chromium: Chromium;
let pages: Pages;
beforeAll(async () => {
  [chromium, pages] = await Promise.all([launchChromium(), servePages()]);
});
afterAll(async () => {
  await chromium.close();
  await pages.close();
});

let made = 0;

async function newPage(url = pages.url): Promise<Page> {
  const page = await chromium.context.newPage();
  await page.goto(url);
  return page;
}

storageContract("IndexedDB in Chromium", async () => {
  const name = `contract ${made++}`;
  const page = await newPage();
  return {
    storage: await storageIn(page, name),
    reopen: async () => {
      await page.reload();
      return storageIn(page, name);
    },
  };
});

async function faultOf(promise: Promise<unknown>): Promise<StorageError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(StorageError);
  return error as StorageError;
}

const bytes = (...values: number[]): Uint8Array => new Uint8Array(values);

describe("IndexedDB in Chromium", () => {
  it("fails with `full` at the quota, keeps what was there, and goes on when there is space", async () => {
    // An origin of its own: the browser asks for the quota again only when what it remembers of an origin's is used up.
    const url = new URL(pages.url);
    url.hostname = "localhost";
    const page = await newPage(url.href);
    const session = await chromium.context.newCDPSession(page);
    const { origin } = url;
    const { usage } = await session.send("Storage.getUsageAndQuota", { origin });
    await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: usage + 1_000_000 });
    const storage = await storageIn(page, `quota ${made++}`);
    await storage.write([{ put: "before", value: bytes(1) }]);
    const batch = [{ remove: "before" }, { put: "large", value: randomBytes(4_000_000) }];
    expect((await faultOf(storage.write(batch))).kind).toBe("full");
    expect(await storage.list("")).toEqual([["before", bytes(1)]]);
    await session.send("Storage.overrideQuotaForOrigin", { origin });
    await storage.write(batch);
    expect((await storage.list("")).map(([key, value]) => [key, value.length])).toEqual([["large", 4_000_000]]);
    await page.close();
  });

  it("keeps what resolved when the page crashes right after", async () => {
    const page = await newPage();
    const storage = await storageIn(page, "crash");
    for (let index = 0; index < 20; index++) await storage.write([{ put: `k/${index}`, value: bytes(index) }]);
    const crashed = page.waitForEvent("crash");
    const session = await chromium.context.newCDPSession(page);
    void session.send("Page.crash").catch(() => undefined);
    await crashed;
    await page.close();
    const again = await storageIn(await newPage(), "crash");
    expect(await again.list("k/")).toHaveLength(20);
  });

  it("goes on in one page while another deletes the database", async () => {
    const [page, other] = [await newPage(), await newPage()];
    const storage = await storageIn(page, "deleted");
    await storage.write([{ put: "before", value: bytes(1) }]);
    await other.evaluate(
      () =>
        new Promise<void>((deleted, failed) => {
          const request = indexedDB.deleteDatabase("deleted");
          request.onsuccess = () => deleted();
          request.onerror = () => failed(request.error);
        }),
    );
    await storage.write([{ put: "after", value: bytes(2) }]);
    expect(await storage.list("")).toEqual([["after", bytes(2)]]);
    await Promise.all([page.close(), other.close()]);
  });

  it("keeps what a page writes at last, when it is left", async () => {
    const page = await newPage();
    for (let round = 0; round < 10; round++) {
      await writeAtLast(page, "at last", ["a", "b", "c"].map((key) => ({ put: `${round}/${key}`, value: randomBytes(10_000) })));
      await page.goto("about:blank");
      await page.goto(pages.url);
      const again = await storageIn(page, "at last");
      expect((await again.list(`${round}/`)).map(([key]) => key)).toEqual([`${round}/a`, `${round}/b`, `${round}/c`]);
    }
    await page.close();
  });

  it("is shared by the pages of an origin", async () => {
    const [page, other] = [await newPage(), await newPage()];
    const [mine, theirs] = [await storageIn(page, "shared"), await storageIn(other, "shared")];
    await Promise.all([mine.write([{ put: "a", value: bytes(1) }]), theirs.write([{ put: "b", value: bytes(2) }])]);
    expect(await mine.list("")).toEqual(await theirs.list(""));
    expect(await mine.list("")).toHaveLength(2);
    await Promise.all([page.close(), other.close()]);
  });
});

/** The browser packs what it stores, but not these. */
function randomBytes(length: number): Uint8Array {
  return new Uint8Array(random(length));
}
