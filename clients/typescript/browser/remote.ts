/** Storage and tabs of a page in a real browser, used from a test as if they were here. */
import type { Page } from "playwright-core";
import { StorageError, type Storage, type StorageWrite } from "../src/storage/storage.js";
import type { Channel, Lock, Tabs } from "../src/tabs/tabs.js";
import type { Answer, Harness } from "./page.js";

/** Numbers for what lives in pages. */
let named = 0;

/** Calls the page's harness. Calls reach the page in the order made. */
async function ask<Name extends keyof Harness>(page: Page, name: Name, ...call: Parameters<Harness[Name]>): Promise<Awaited<ReturnType<Harness[Name]>>> {
  const answer = await page.evaluate(
    ([method, args]) => (window.harness[method as Name] as (...args: unknown[]) => unknown)(...args),
    [name, call] as [string, unknown[]],
  );
  return answer as Awaited<ReturnType<Harness[Name]>>;
}

async function unwrap<T>(answer: Promise<Answer<T>>): Promise<T> {
  const given = await answer;
  if ("message" in given) throw given.fault === undefined ? new Error(given.message) : new StorageError(given.fault, given.message);
  return given.value;
}

/** The IndexedDB storage `name` of a page. */
export async function storageIn(page: Page, name: string): Promise<Storage> {
  const id = named++;
  await ask(page, "openStorage", id, name);
  return {
    get: (key) => unwrap(ask(page, "get", id, key)),
    list: (prefix) => unwrap(ask(page, "list", id, prefix)),
    write: (batch: readonly StorageWrite[]) => unwrap(ask(page, "write", id, [...batch])),
    close: () => unwrap(ask(page, "closeStorage", id)),
  };
}

/** Opens the storage `name` of a page and writes this batch when the page is left. */
export async function writeAtLast(page: Page, name: string, batch: readonly StorageWrite[]): Promise<void> {
  const id = named++;
  await ask(page, "openStorage", id, name);
  await unwrap(ask(page, "get", id, "it is open"));
  await ask(page, "writeAtLast", id, [...batch]);
}

/** The tab primitives of a page; `scope` stands before all names, so that tests share none. */
export async function tabsIn(page: Page, scope: string): Promise<Tabs> {
  const ears = new Map<number, (message: unknown) => void>();
  await page.exposeFunction("heard", (id: number, message: unknown) => ears.get(id)?.(message));
  const held = (id: number): Lock => ({ release: () => tell(ask(page, "release", id)) });
  return {
    channel: (name, hear): Channel => {
      const id = named++;
      ears.set(id, hear);
      tell(ask(page, "openChannel", id, scope + name));
      return { post: (message) => tell(ask(page, "post", id, message)), close: () => tell(ask(page, "closeChannel", id)) };
    },
    lock: async (name, signal) => {
      const id = named++;
      const answer = unwrap(ask(page, "lock", id, scope + name));
      const aborted = (): void => tell(ask(page, "abort", id, String((signal?.reason as Error).message)));
      if (signal?.aborted === true) aborted();
      else signal?.addEventListener("abort", aborted, { once: true });
      await answer;
      return held(id);
    },
    tryLock: async (name) => {
      const id = named++;
      return (await unwrap(ask(page, "tryLock", id, scope + name))) ? held(id) : undefined;
    },
  };
}

/** What nobody waits for; the page may be gone by then. */
function tell(asked: Promise<unknown>): void {
  asked.catch(() => undefined);
}
