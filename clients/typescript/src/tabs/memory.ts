/**
 * An origin whose pages live in one process: for tests, for Node, and for what a browser lacks. It behaves as BroadcastChannel and
 * Web Locks do: messages are copied and arrive later, locks are given in the order asked for.
 */
import type { Channel, Lock, Tabs } from "./tabs.js";

/** One page of a `MemoryOrigin`. */
export interface MemoryPage extends Tabs {
  /** The page is gone without a word: its locks go to others, and it neither hears nor tells anything more. */
  kill(): void;
}

/** What pages share. */
export class MemoryOrigin {
  readonly #ends = new Set<End>();
  /** In the order asked for: the first of a name holds the lock. */
  readonly #claims: Claim[] = [];

  /** One more page. */
  page(): MemoryPage {
    return new Page(this.#ends, this.#claims);
  }
}

class Page implements MemoryPage {
  readonly #ends: Set<End>;
  readonly #claims: Claim[];
  #gone = false;

  constructor(ends: Set<End>, claims: Claim[]) {
    this.#ends = ends;
    this.#claims = claims;
  }

  channel(name: string, hear: (message: unknown) => void): Channel {
    const end: End = { page: this, name, hear };
    if (!this.#gone) this.#ends.add(end);
    return {
      post: (message) => this.#post(end, message),
      close: () => void this.#ends.delete(end),
    };
  }

  lock(name: string, signal?: AbortSignal): Promise<Lock> {
    return new Promise((held, failed) => {
      const claim: Claim = { page: this, name, held: () => held({ release: () => this.#drop(claim) }) };
      const aborted = (): void => {
        if (this.#holder(name) === claim) return;
        this.#drop(claim);
        failed(signal?.reason as Error);
      };
      if (signal?.aborted === true) return failed(signal.reason as Error);
      signal?.addEventListener("abort", aborted, { once: true });
      this.#ask(claim);
    });
  }

  async tryLock(name: string): Promise<Lock | undefined> {
    return this.#holder(name) === undefined ? this.lock(name) : undefined;
  }

  kill(): void {
    this.#gone = true;
    for (const end of [...this.#ends]) if (end.page === this) this.#ends.delete(end);
    // Those that wait go first, so that none of them is given what the page lets go of.
    for (const claim of this.#claims.filter((each) => each.page === this).reverse()) this.#drop(claim);
  }

  #post(from: End, message: unknown): void {
    if (!this.#ends.has(from)) return;
    const copy: unknown = structuredClone(message);
    for (const end of this.#ends) {
      if (end === from || end.name !== from.name) continue;
      queueMicrotask(() => this.#ends.has(end) && end.hear(structuredClone(copy)));
    }
  }

  #holder(name: string): Claim | undefined {
    return this.#claims.find((claim) => claim.name === name);
  }

  #ask(claim: Claim): void {
    if (this.#gone) return;
    this.#claims.push(claim);
    if (this.#holder(claim.name) === claim) claim.held();
  }

  #drop(claim: Claim): void {
    const held = this.#holder(claim.name) === claim;
    const at = this.#claims.indexOf(claim);
    if (at < 0) return;
    this.#claims.splice(at, 1);
    if (held) this.#holder(claim.name)?.held();
  }
}

interface End {
  readonly page: Page;
  readonly name: string;
  readonly hear: (message: unknown) => void;
}

interface Claim {
  readonly page: Page;
  readonly name: string;
  readonly held: () => void;
}
