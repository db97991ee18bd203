/**
 * The tab primitives of a browser: BroadcastChannel and Web Locks. Where a page has none of them (an address without TLS that is not
 * this machine's has no Web Locks) it acts as if it were alone: locks hold within the page, and nothing is heard. Pages that do not
 * see each other send the same stored changes twice at worst; the server takes them once ([E3]).
 */
import { MemoryOrigin } from "./memory.js";
import type { Channel, Lock, Tabs } from "./tabs.js";

/** What the pages of this origin share. */
export function browserTabs(): Tabs {
  return new BrowserTabs();
}

class BrowserTabs implements Tabs {
  /** The browser's, unless the page has none. */
  readonly #locks: LockManager | undefined = (globalThis.navigator as Partial<Navigator> | undefined)?.locks;

  channel(name: string, hear: (message: unknown) => void): Channel {
    if (typeof BroadcastChannel === "undefined") return DEAF;
    const channel = new BroadcastChannel(name);
    channel.onmessage = (event: MessageEvent) => hear(event.data);
    return new OpenChannel(channel);
  }

  lock(name: string, signal?: AbortSignal): Promise<Lock> {
    if (this.#locks === undefined) return PAGE_LOCKS.lock(name, signal);
    const locks = this.#locks;
    return new Promise((held, failed) => {
      const aborted = (): void => failed(signal?.reason);
      if (signal?.aborted === true) return aborted();
      signal?.addEventListener("abort", aborted, { once: true });
      const options = signal === undefined ? {} : { signal };
      const granted = (): Promise<void> | undefined => {
        // Chromium looks up first whether a page may have locks, and forgets an abort that comes meanwhile.
        if (signal?.aborted === true) return undefined;
        signal?.removeEventListener("abort", aborted);
        return hold(held);
      };
      locks.request(name, options, granted).catch(failed);
    });
  }

  tryLock(name: string): Promise<Lock | undefined> {
    if (this.#locks === undefined) return PAGE_LOCKS.tryLock(name);
    const locks = this.#locks;
    return new Promise((answered, failed) => {
      locks
        .request(name, { ifAvailable: true }, (lock) => {
          if (lock !== null) return hold(answered);
          answered(undefined);
          return undefined;
        })
        .catch(failed);
    });
  }
}

/** The browser lets go of a lock when the promise that its callback gave is settled. */
function hold(held: (lock: Lock) => void): Promise<void> {
  return new Promise((release) => held({ release: () => release() }));
}

/** The locks of a page without Web Locks: they hold among its own users. */
const PAGE_LOCKS: Tabs = new MemoryOrigin().page();

const DEAF: Channel = { post: () => undefined, close: () => undefined };

class OpenChannel implements Channel {
  #channel: BroadcastChannel | undefined;

  constructor(channel: BroadcastChannel) {
    this.#channel = channel;
  }

  post(message: unknown): void {
    this.#channel?.postMessage(message);
  }

  close(): void {
    if (this.#channel === undefined) return;
    this.#channel.onmessage = null;
    this.#channel.close();
    this.#channel = undefined;
  }
}
