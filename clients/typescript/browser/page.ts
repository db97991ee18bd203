/**
 * What runs in the page of a browser test: the parts under test, called from outside by name. Answers are plain values, because
 * an error loses its class on its way out of the page.
 */
import { indexedDbStorage } from "../src/storage/indexeddb.js";
import { StorageError, type Storage, type StorageFault, type StorageWrite } from "../src/storage/storage.js";
import { browserTabs } from "../src/tabs/browser.js";
import type { Channel, Lock, Tabs } from "../src/tabs/tabs.js";

/** An answer of the page. */
export type Answer<T> = { readonly value: T } | { readonly fault: StorageFault | undefined; readonly message: string };

/** What the page can be asked. Storages, channels and locks are named by numbers that the caller chooses. */
export class Harness {
  readonly #storages = new Map<number, Storage>();
  readonly #tabs: Tabs = browserTabs();
  readonly #channels = new Map<number, Channel>();
  readonly #locks = new Map<number, Lock>();
  readonly #waits = new Map<number, AbortController>();

  openStorage(id: number, name: string): void {
    this.#storages.set(id, indexedDbStorage(name));
  }

  get(id: number, key: string): Promise<Answer<Uint8Array | undefined>> {
    return answered(this.#storages.get(id)!.get(key));
  }

  list(id: number, prefix: string): Promise<Answer<Array<[string, Uint8Array]>>> {
    return answered(this.#storages.get(id)!.list(prefix));
  }

  write(id: number, batch: StorageWrite[]): Promise<Answer<void>> {
    return answered(this.#storages.get(id)!.write(batch));
  }

  /** Writes when the page is left. */
  writeAtLast(id: number, batch: StorageWrite[]): void {
    const storage = this.#storages.get(id)!;
    addEventListener("pagehide", () => void storage.write(batch));
  }

  closeStorage(id: number): Promise<Answer<void>> {
    return answered(this.#storages.get(id)!.close());
  }

  openChannel(id: number, name: string): void {
    this.#channels.set(id, this.#tabs.channel(name, (message) => void window.heard(id, message)));
  }

  post(id: number, message: unknown): void {
    this.#channels.get(id)?.post(message);
  }

  closeChannel(id: number): void {
    this.#channels.get(id)?.close();
  }

  lock(id: number, name: string): Promise<Answer<boolean>> {
    const abort = new AbortController();
    this.#waits.set(id, abort);
    return answered(this.#tabs.lock(name, abort.signal).then((lock) => this.#hold(id, lock)));
  }

  tryLock(id: number, name: string): Promise<Answer<boolean>> {
    return answered(this.#tabs.tryLock(name).then((lock) => lock !== undefined && this.#hold(id, lock)));
  }

  abort(id: number, reason: string): void {
    this.#waits.get(id)?.abort(new Error(reason));
  }

  release(id: number): void {
    this.#locks.get(id)?.release();
  }

  #hold(id: number, lock: Lock): boolean {
    this.#locks.set(id, lock);
    return true;
  }
}

async function answered<T>(call: Promise<T>): Promise<Answer<T>> {
  try {
    return { value: await call };
  } catch (error) {
    const fault = error instanceof StorageError ? error.kind : undefined;
    return { fault, message: error instanceof Error ? error.message : String(error) };
  }
}

declare global {
  interface Window {
    harness: Harness;
    /** Given by the test: a channel has heard something. */
    heard(id: number, message: unknown): void;
  }
}

window.harness = new Harness();
