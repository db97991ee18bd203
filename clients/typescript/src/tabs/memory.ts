/** Pages of one origin inside one process: for tests, and for several clients of one program that share a storage. */
import type { Channel, Lock, Tabs } from "./tabs.js";

interface Ear {
  readonly page: object;
  readonly hear: (message: unknown) => void;
}

interface Wish {
  readonly page: object;
  readonly grant: (lock: Lock) => void;
}

/** What the pages share. */
export class MemoryOrigin {
  readonly #ears = new Map<string, Set<Ear>>();
  readonly #held = new Map<string, object>();
  readonly #wishes = new Map<string, Wish[]>();
  readonly #gone = new WeakSet<object>();

  /** A new page. `kill` ends it without a word: it hears and tells nothing more, and its locks are free. */
  page(): Tabs & { kill(): void } {
    const page = {};
    return {
      channel: (name, hear) => this.#channel(page, name, hear),
      lock: (name, signal) => this.#lock(page, name, signal),
      tryLock: async (name) => (this.#held.has(name) ? undefined : this.#grant(page, name)),
      kill: () => this.#kill(page),
    };
  }

  #channel(page: object, name: string, hear: (message: unknown) => void): Channel {
    const ear: Ear = { page, hear };
    const ears = this.#ears.get(name) ?? new Set();
    this.#ears.set(name, ears.add(ear));
    return {
      post: (message) => {
        if (!ears.has(ear)) return;
        const told = structuredClone(message);
        for (const other of [...ears].filter((each) => each.page !== page)) {
          queueMicrotask(() => ears.has(other) && other.hear(structuredClone(told)));
        }
      },
      close: () => void ears.delete(ear),
    };
  }

  async #lock(page: object, name: string, signal: AbortSignal | undefined): Promise<Lock> {
    signal?.throwIfAborted();
    if (this.#gone.has(page)) return new Promise(() => {});
    if (!this.#held.has(name)) return this.#grant(page, name);
    return new Promise((resolve, reject) => {
      const wish: Wish = { page, grant: resolve };
      const wishes = this.#wishes.get(name) ?? [];
      this.#wishes.set(name, [...wishes, wish]);
      signal?.addEventListener("abort", () => {
        this.#wishes.set(name, (this.#wishes.get(name) ?? []).filter((each) => each !== wish));
        reject(signal.reason as Error);
      });
    });
  }

  #grant(page: object, name: string): Lock {
    const holder = { page };
    this.#held.set(name, holder);
    return { release: () => this.#release(name, holder) };
  }

  #release(name: string, holder: object): void {
    if (this.#held.get(name) !== holder) return;
    this.#held.delete(name);
    const [next, ...rest] = this.#wishes.get(name) ?? [];
    this.#wishes.set(name, rest);
    if (next !== undefined) next.grant(this.#grant(next.page, name));
  }

  #kill(page: object): void {
    this.#gone.add(page);
    for (const ears of this.#ears.values()) for (const ear of ears) if (ear.page === page) ears.delete(ear);
    for (const [name, wishes] of this.#wishes) this.#wishes.set(name, wishes.filter((wish) => wish.page !== page));
    for (const [name, holder] of this.#held) if ((holder as { page: object }).page === page) this.#release(name, holder);
  }
}
