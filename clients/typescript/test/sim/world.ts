/**
 * A world in one process: time, a network that cuts, a server that crashes, origins whose pages come and go and whose storage
 * fails. Everything happens in one queue ordered by time, drawn from one seed: one seed, one run.
 */
import { Client, type ClientOptions, type Storage, type StorageWrite } from "../../src/index.js";
import { Random } from "../../src/core/random.js";
import { memoryStorage } from "../../src/storage/memory.js";
import { StorageError } from "../../src/storage/storage.js";
import { MemoryOrigin } from "../../src/tabs/memory.js";
import type { Tabs } from "../../src/tabs/tabs.js";
import type { Transport, TransportEvents } from "../../src/transport/transport.js";
import { ModelServer } from "./server.js";

interface Happening {
  readonly at: number;
  readonly order: number;
  readonly happen: () => void;
}

interface Link {
  readonly session: number;
  readonly owner: object;
  readonly hears: TransportEvents;
  /** Frames of one direction arrive in the order sent. */
  upAt: number;
  downAt: number;
  open: boolean;
}

export class World {
  readonly random: Random;
  readonly server = new ModelServer();
  now = 0;
  /** Whether connections are made. */
  reachable = true;
  #order = 0;
  #queue: Happening[] = [];
  readonly #links = new Map<number, Link>();

  constructor(seed: number) {
    this.random = new Random(new Uint8Array(new Uint32Array([seed, seed ^ 0x9e3779b9, 7]).buffer));
    this.server.send = (session, frame) => this.#down(session, frame);
  }

  below(limit: number): number {
    return this.random.number() % limit;
  }

  /** True once in `times`. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }

  after(ms: number, happen: () => void): () => void {
    const happening = { at: this.now + ms, order: this.#order++, happen };
    this.#queue.push(happening);
    return () => void (this.#queue = this.#queue.filter((each) => each !== happening));
  }

  /** Lets time pass. */
  async run(ms: number): Promise<void> {
    const end = this.now + ms;
    await settled();
    for (;;) {
      const next = this.#queue.reduce<Happening | undefined>((first, each) => (first === undefined || before(each, first) ? each : first), undefined);
      if (next === undefined || next.at > end) break;
      this.#queue = this.#queue.filter((each) => each !== next);
      this.now = Math.max(this.now, next.at);
      next.happen();
      await settled();
    }
    this.now = end;
  }

  transport(owner: object): Transport {
    return {
      connect: (_, hears) => {
        const link: Link = { session: this.server.accept(), owner, hears, upAt: 0, downAt: 0, open: false };
        this.#links.set(link.session, link);
        this.after(this.#latency(), () => {
          if (!this.#links.has(link.session)) return;
          if (!this.reachable) return this.#end(link, 1006);
          link.open = true;
          hears.opened();
        });
        return {
          send: (frame) => this.#up(link, frame),
          close: () => this.#forget(link),
        };
      },
    };
  }

  /** Cuts the connections of one page, or of all, with this close code. */
  cut(owner?: object, code = 1006): void {
    for (const link of [...this.#links.values()]) if (owner === undefined || link.owner === owner) this.#end(link, code);
  }

  /** The page is gone: nobody hears. */
  drop(owner: object): void {
    for (const link of [...this.#links.values()]) if (link.owner === owner) this.#forget(link);
  }

  #latency(): number {
    return 1 + this.below(40);
  }

  #up(link: Link, frame: Uint8Array): void {
    if (!link.open) return;
    link.upAt = Math.max(link.upAt, this.now + this.#latency());
    this.after(link.upAt - this.now, () => {
      if (this.#links.has(link.session)) this.server.receive(link.session, frame);
    });
  }

  #down(session: number, frame: Uint8Array): void {
    const link = this.#links.get(session);
    if (link === undefined) return;
    link.downAt = Math.max(link.downAt, this.now + this.#latency());
    this.after(link.downAt - this.now, () => {
      if (this.#links.has(session)) link.hears.frame(frame.slice());
    });
  }

  #end(link: Link, code: number): void {
    this.#forget(link);
    this.after(0, () => link.hears.closed(code));
  }

  #forget(link: Link): void {
    this.#links.delete(link.session);
    this.server.gone(link.session);
  }
}

/** All that waits in promises has happened. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function before(a: Happening, b: Happening): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** A browser profile: pages that share a storage. */
export class Origin {
  readonly #world: World;
  readonly #tabs = new MemoryOrigin();
  readonly storage = memoryStorage();
  /** The storage refuses to write. */
  full = false;
  /** What the storage has no space for. */
  tooLarge: (batch: readonly StorageWrite[]) => boolean = () => false;
  /** What is stored cannot be read now. */
  unreadable = false;
  /** Planted: nobody finds what another page has left. */
  hidesQueues = false;
  /** Planted: every page gets every lock. */
  sharesLocks = false;

  constructor(world: World) {
    this.#world = world;
  }

  async #list(prefix: string): Promise<Array<[string, Uint8Array]>> {
    if (this.unreadable) throw new StorageError("blocked", "it cannot be read now");
    return this.storage.list(prefix);
  }

  /** A page load; `seed` in the place of its own makes it a duplicate. */
  page(options: Partial<ClientOptions> = {}, seed?: Uint8Array): Page {
    const tabs = this.#tabs.page();
    const lock = async () => ({ release: () => {} });
    const lawless = { channel: (name: string, hear: (message: unknown) => void) => tabs.channel(name, hear), kill: () => tabs.kill(), lock, tryLock: lock };
    return new Page(this.#world, this.sharesLocks ? lawless : tabs, (page) => this.#view(page), options, seed);
  }

  /** The storage as one page has it: what a page that is gone has not begun to write is never written, and of what is
   * written it may never hear. */
  #view(page: { readonly gone: boolean }): Storage {
    const { storage } = this;
    const slow = <T>(work: () => Promise<T>): Promise<T> =>
      new Promise((resolve, reject) => {
        this.#world.after(this.#world.below(5), () => {
          if (!page.gone) work().then(resolve, reject);
        });
      });
    let writes = Promise.resolve();
    return {
      get: (key) => slow(() => storage.get(key)),
      list: (prefix) =>
        slow(async () => (await this.#list(prefix)).filter(([key]) => !this.hidesQueues || !key.includes("/q/"))),
      write: (batch: readonly StorageWrite[]) => {
        const write = () =>
          slow(async () => {
            if (this.full || this.tooLarge(batch)) throw new StorageError("full", "no space");
            await storage.write(batch);
          }).then(() => slow(async () => {}));
        const written = writes.then(write);
        writes = written.catch(() => {});
        return written;
      },
      close: async () => {},
    };
  }
}

/** One page load. */
export class Page {
  readonly client: Client;
  readonly errors: string[] = [];
  gone = false;
  /** How far its time of day is wrong. */
  skewMs = 0;
  readonly #world: World;
  readonly #tabs: { kill(): void };

  constructor(world: World, tabs: Tabs & { kill(): void }, view: (page: Page) => Storage, options: Partial<ClientOptions>, given?: Uint8Array) {
    this.#world = world;
    this.#tabs = tabs;
    const seed = given ?? new Uint8Array(32).map(() => world.below(256));
    const clock = {
      now: () => world.now,
      wall: () => 1_700_000_000_000 + world.now + this.skewMs,
      after: (ms: number, done: () => void) => world.after(Math.ceil(ms), () => this.gone || done()),
    };
    const all = { url: "ws://server/sync", storage: view(this), tabs, transport: world.transport(this), ...options };
    this.client = new Client(all, { clock, seed });
    this.client.on("error", ({ kind, message, cause }) => this.errors.push(`${kind}: ${message} ${String(cause ?? "")}`));
  }

  /** The page crashes, or is closed without a word. */
  kill(): void {
    this.gone = true;
    this.#tabs.kill();
    this.#world.drop(this);
  }
}
