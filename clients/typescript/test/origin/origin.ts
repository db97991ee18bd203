/**
 * Pages of one origin with the real client, on a shared disk, before a server: opened, edited, closed, crashed, cut off, all from one
 * seed and in virtual time. `settle` brings everything back to good and tells what has to hold then.
 */
import * as A from "@automerge/automerge";
import { vi } from "vitest";
import { Client } from "../../src/client.js";
import { readEdit } from "../../src/core/kept.js";
import type { DocHandle } from "../../src/handle.js";
import { MemoryOrigin, type MemoryPage } from "../../src/tabs/memory.js";
import type { Connection, Transport } from "../../src/transport/transport.js";
import { systemClock } from "../../src/shell/clock.js";
import { TestServer } from "../server/server.js";
import { Dice } from "./dice.js";
import { Disk, type PageDisk } from "./disk.js";

export const DOCUMENT = "shared";

export interface Shared {
  ids: string[];
  text: string;
}

interface Page {
  readonly name: string;
  readonly client: Client;
  readonly handle: DocHandle<Shared>;
  readonly tabs: MemoryPage;
  readonly disk: PageDisk;
  readonly wire: Wire;
  /** What it has put into `ids`. */
  readonly made: string[];
}

/** A page's way to the server. */
class Wire implements Transport {
  cut = false;
  readonly #inner: Transport;
  #ends: Array<() => void> = [];

  constructor(inner: Transport) {
    this.#inner = inner;
  }

  connect(url: string, hears: Parameters<Transport["connect"]>[1]): Connection {
    if (this.cut) {
      setTimeout(() => hears.closed(undefined), 1);
      return { send: () => undefined, close: () => undefined };
    }
    const connection = this.#inner.connect(url, hears);
    this.#ends.push(() => {
      connection.close();
      hears.closed(undefined);
    });
    return connection;
  }

  /** The network is gone; without `told` the page does not hear of it, because it is gone itself. */
  end(told: boolean): void {
    this.cut = true;
    const ends = this.#ends;
    this.#ends = [];
    if (told) for (const end of ends) end();
  }
}

export class SimulatedOrigin {
  readonly server = new TestServer();
  readonly disk: Disk;
  readonly errors: string[] = [];
  /** Ids that must survive: what a living page made, what was on the disk or at the server when its page crashed. */
  readonly must = new Set<string>();
  readonly #dice: Dice;
  readonly #origin = new MemoryOrigin();
  readonly #pages: Page[] = [];
  #named = 0;

  constructor(seed: number) {
    this.#dice = new Dice(seed);
    this.disk = new Disk(this.#dice);
  }

  get pages(): readonly Page[] {
    return this.#pages;
  }

  /** What happened, for whoever looks into a failure. */
  readonly story: string[] = [];

  /** One random thing happens, and a little time passes. */
  async step(): Promise<void> {
    const page = this.#dice.pick(this.#pages);
    const kind = this.#dice.below(100);
    const state = page && `${page.client.status.state} ${page.handle.safety} ${page.handle.unsyncedChanges} made ${page.made.length}`;
    this.story.push(`${performance.now()} ${kind} ${page?.name} ${state} faults ${this.disk.faultPercent} errors ${this.errors.length}`);
    if (page === undefined || (kind < 6 && this.#pages.length < 4)) this.open();
    else if (kind < 65) this.#edit(page);
    else if (kind < 70) this.#crash(page);
    else if (kind < 74) await this.#close(page);
    else if (kind < 80) page.wire.end(true);
    else if (kind < 88) page.wire.cut = false;
    else if (kind < 92) this.server.cut();
    else if (kind < 94) page.client.goOffline();
    else if (kind < 97) page.client.goOnline();
    else this.disk.faultPercent = this.#dice.below(3) === 0 ? 30 : 0;
    await this.pass(this.#dice.pick([0, 1, 5, 20, 100, 700, 3_000])!);
  }

  async pass(ms: number): Promise<void> {
    await vi.advanceTimersByTimeAsync(ms);
  }

  open(): Page {
    const name = `p${this.#named++}`;
    const tabs = this.#origin.page();
    const disk = this.disk.page();
    const wire = new Wire(this.server.transport());
    wire.cut = this.#dice.below(4) === 0;
    const options = { url: "ws://sim", transport: wire, storage: disk, tabs, groupMs: 20 };
    const client = new Client(options, { clock: systemClock, seed: this.#dice.bytes(32) });
    client.on("error", ({ kind, message }) => void this.errors.push(`${name} ${kind}: ${message}`));
    const handle = client.open<Shared>(DOCUMENT, { initial: { ids: [], text: "" } });
    const page: Page = { name, client, handle, tabs, disk, wire, made: [] };
    this.#pages.push(page);
    return page;
  }

  #edit(page: Page): void {
    if (!page.handle.isReady) return;
    for (let left = this.#dice.below(3) + 1; left > 0; left--) {
      const id = `${page.name}.${page.made.length}`;
      const before = page.handle.doc().text.length;
      const at = this.#dice.below(before + 1);
      page.handle.change(
        (doc) => {
          doc.ids.push(id);
          A.splice(doc as A.Doc<Shared>, ["text"], at, Math.min(before - at, this.#dice.below(3)), `<${id}>`);
        },
        { message: id },
      );
      page.made.push(id);
    }
  }

  #crash(page: Page): void {
    this.#remove(page);
    page.disk.crash();
    page.wire.end(false);
    page.tabs.kill();
    const safe = new Set([...this.#onDisk(), ...this.#atServer()]);
    for (const id of page.made) if (safe.has(id)) this.must.add(id);
    // What is left of it in this process does nothing any more.
    page.client.goOffline();
  }

  async #close(page: Page): Promise<void> {
    this.#remove(page);
    for (const id of page.made) this.must.add(id);
    const faultPercent = this.disk.faultPercent;
    this.disk.faultPercent = 0;
    const closed = page.client.close();
    await this.pass(20_000);
    await closed;
    this.disk.faultPercent = faultPercent;
    page.tabs.kill();
  }

  #remove(page: Page): void {
    this.#pages.splice(this.#pages.indexOf(page), 1);
  }

  #onDisk(): string[] {
    const queued = [...this.disk.entries].filter(([key]) => key.includes("/q/"));
    return queued.flatMap(([key, value]) => A.decodeChange(readEdit(key, value).change).message ?? []);
  }

  #atServer(): string[] {
    return this.server.log(DOCUMENT).flatMap(({ chunk }) => A.decodeChange(chunk).message ?? []);
  }

  /** Everything works again, and all that was to be brought to the server has the time to come there. */
  async settle(): Promise<void> {
    this.disk.faultPercent = 0;
    for (const page of this.#pages) for (const id of page.made) this.must.add(id);
    const last = this.open();
    last.wire.cut = false;
    for (const page of this.#pages) {
      page.wire.cut = false;
      page.client.goOnline();
    }
    await this.pass(120_000);
  }

  /** Ends all pages; their timers must not reach into the next test. */
  async end(): Promise<void> {
    const closed = Promise.all(this.#pages.map((page) => page.client.close()));
    await this.pass(60_000);
    await closed;
  }
}
