/** One run: pages that write while everything fails, then peace; and what must hold afterwards. */
import * as A from "@automerge/automerge";
import type { DocHandle } from "../../src/index.js";
import { Origin, World, type Page } from "./world.js";

const DOCUMENT = "notes";

export interface Notes {
  text: string;
  tags: string[];
  seen: number;
}

const initial: Notes = { text: "", tags: [], seen: 0 };

interface Desk {
  readonly origin: Origin;
  readonly page: Page;
  readonly handle: DocHandle<Notes>;
}

/** What may happen in a run, each once in so many steps; 0 for never. */
export interface Faults {
  readonly cut: number;
  readonly crash: number;
  readonly kill: number;
  readonly reject: number;
  readonly quarantine: number;
  readonly restore: number;
  readonly full: number;
  readonly offline: number;
}

export const allFaults: Faults = { cut: 12, crash: 40, kill: 25, reject: 40, quarantine: 60, restore: 120, full: 60, offline: 25 };

export interface Outcome {
  /** What does not hold; empty if all is well. */
  readonly complaints: string[];
  readonly edits: number;
  readonly trace: string;
}

/** A fault that is built in on purpose: the run must complain of it. */
export type Planted = "none" | "queues are never adopted" | "the server forgets" | "two pages think that they are one";

export async function simulate(seed: number, steps: number, faults: Faults, planted: Planted = "none"): Promise<Outcome> {
  const run = new Run(seed, faults, planted);
  return run.outcome(steps);
}

class Run {
  readonly #world: World;
  readonly #faults: Faults;
  readonly #origins: Origin[];
  #desks: Desk[] = [];
  #edits = 0;
  #quarantines = 0;
  #restores = 0;
  /** Edits that nobody has to keep: their page died before they were stored, or the server lost them and their page is gone. */
  readonly #excused = new Set<string>();
  readonly #author = new Map<string, Page>();
  readonly #trace: string[] = [];
  readonly #errors: string[] = [];

  readonly #planted: Planted;

  constructor(seed: number, faults: Faults, planted: Planted) {
    this.#world = new World(seed);
    this.#faults = faults;
    this.#planted = planted;
    this.#origins = [new Origin(this.#world), new Origin(this.#world)];
    for (const origin of this.#origins) {
      origin.hidesQueues = planted === "queues are never adopted";
      origin.sharesLocks = planted === "two pages think that they are one";
    }
  }

  async outcome(steps: number): Promise<Outcome> {
    const sync = () => {
      this.#world.server.sync();
      this.#world.after(1 + this.#world.below(20), sync);
    };
    sync();
    for (const origin of this.#origins) for (let page = 0; page < 2; page += 1) this.#open(origin);
    for (let step = 0; step < steps; step += 1) {
      await this.#step();
      await this.#world.run(this.#world.below(120));
    }
    await this.#peace();
    const complaints = await this.#complaints();
    for (const { page } of this.#desks) page.kill();
    return { complaints, edits: this.#edits, trace: this.#trace.join("\n") };
  }

  #open(origin: Origin): void {
    const page = origin.page();
    this.#desks.push({ origin, page, handle: page.client.open<Notes>(DOCUMENT, { initial }) });
    this.#note("a page opens");
  }

  #note(what: string): void {
    this.#trace.push(`${this.#world.now} ${what}`);
  }

  #happens(fault: keyof Faults): boolean {
    return this.#faults[fault] > 0 && this.#world.once(this.#faults[fault]);
  }

  async #step(): Promise<void> {
    const world = this.#world;
    for (const desk of this.#desks) if (world.once(2)) this.#edit(desk);
    const desk = this.#desks[world.below(this.#desks.length)]!;
    if (this.#happens("cut")) this.#noted("cut", () => world.cut(desk.page));
    if (this.#happens("crash")) this.#noted("crash", () => this.#crash());
    if (this.#happens("kill")) await this.#kill(desk);
    if (this.#happens("reject")) {
      const codes = ["limit", "forbidden", "unavailable", "missing_deps", "x_new"];
      this.#noted("reject", () => (world.server.refuse = { code: codes[world.below(codes.length)]!, left: 1 }));
    }
    if (this.#restores === 0 && this.#happens("quarantine")) {
      this.#quarantines += 1;
      this.#noted("quarantine", () => this.#lost(world.server.quarantine(DOCUMENT, this.#recent())));
    }
    // Either a bad change or an old backup: of both at once, some pages bring back what others have made anew.
    if (this.#quarantines === 0 && this.#happens("restore")) {
      this.#restores += 1;
      this.#noted("restore", () => {
        this.#crash();
        this.#lost(world.server.restore(DOCUMENT, this.#recent()));
      });
    }
    if (this.#happens("full")) this.#noted("full", () => (desk.origin.full = !desk.origin.full));
    if (this.#happens("offline")) this.#noted("offline", () => desk.page.client.goOffline());
    if (this.#planted === "the server forgets" && world.once(20)) world.server.forget(DOCUMENT);
    if (world.once(6)) desk.page.client.goOnline();
    if (world.once(40)) this.#noted("compact", () => world.server.compact(DOCUMENT));
  }

  #noted(what: string, work: () => void): void {
    this.#note(what);
    work();
  }

  #recent(): number {
    const length = this.#world.server.length(DOCUMENT);
    // Not the first one, which is the same from everybody.
    return Math.max(1, length - 1 - this.#world.below(10));
  }

  #crash(): void {
    this.#world.server.crash();
    this.#world.cut();
  }

  #edit({ page, handle }: Desk): void {
    if (!handle.isReady) return;
    const token = `t${String(this.#edits).padStart(5, "0")};`;
    const inText = this.#world.once(2);
    const place = this.#world.random.number();
    try {
      handle.change((doc) => {
        if (inText) {
          const ends = [0, ...[...doc.text].flatMap((char, at) => (char === ";" ? [at + 1] : []))];
          A.splice(doc, ["text"], ends[place % ends.length]!, 0, token);
        } else {
          doc.tags.push(token);
        }
        doc.seen += 1;
      });
    } catch (error) {
      if ((error as { kind?: string }).kind === undefined) throw error;
      return;
    }
    this.#author.set(token, page);
    this.#edits += 1;
  }

  async #kill(desk: Desk): Promise<void> {
    this.#note("kill");
    desk.page.kill();
    this.#errors.push(...desk.page.errors);
    this.#desks = this.#desks.filter((each) => each !== desk);
    const stored = await storedText(desk.origin);
    const server = JSON.stringify(this.#world.server.document(DOCUMENT));
    for (const [token, page] of this.#author) {
      if (page === desk.page && !stored.includes(token) && !server.includes(token)) this.#excused.add(token);
    }
    this.#open(desk.origin);
  }

  /** The server lost changes that it had acknowledged: their pages make them anew, if they are still there. */
  #lost(entries: ReadonlyArray<{ readonly bytes: Uint8Array }>): void {
    const text = entries.map(({ bytes }) => latin(bytes)).join();
    for (const [token] of this.#author) if (text.includes(token)) this.#excused.add(token);
  }

  async #peace(): Promise<void> {
    this.#note("peace");
    this.#world.server.refuse.left = 0;
    for (const origin of this.#origins) origin.full = false;
    for (const { page } of this.#desks) page.client.goOnline();
    await this.#world.run(120_000);
  }

  async #complaints(): Promise<string[]> {
    const { server } = this.#world;
    const complaints: string[] = [];
    const heads = A.getHeads(server.document(DOCUMENT)).join();
    const now = server.document<Notes>(DOCUMENT);
    const shown = `${now.text},${JSON.stringify(now.tags)}`;
    for (const [at, { handle }] of this.#desks.entries()) {
      const { state } = handle.status;
      if (state !== "live") complaints.push(`page ${at} is ${JSON.stringify(handle.status)}`);
      else if (handle.heads().join() !== heads) complaints.push(`page ${at} has other heads`);
      else if (JSON.stringify(handle.doc()) !== JSON.stringify(now)) complaints.push(`page ${at} shows something else`);
      if (handle.unsyncedChanges > 0) complaints.push(`page ${at} has ${handle.unsyncedChanges} unsynced changes`);
    }
    for (const hash of server.promised) if (!server.has(DOCUMENT, hash)) complaints.push(`${hash} was promised and is gone`);
    const drafts = (await Promise.all(this.#origins.map((origin) => storedText(origin, "/x/")))).join();
    for (const token of this.#author.keys()) {
      const found = shown.split(token).length - 1;
      if (found > 1) complaints.push(`${token} is there ${found} times`);
      if (found === 0 && !this.#excused.has(token) && !drafts.includes(token)) complaints.push(`${token} is lost`);
    }
    const errors = [...this.#errors, ...this.#desks.flatMap(({ page }) => page.errors)];
    complaints.push(...errors.filter((error) => !error.startsWith("storage:")));
    return complaints;
  }
}

/** Values of a storage as one text, to look for tokens in. */
async function storedText(origin: Origin, under = ""): Promise<string> {
  const entries = await origin.storage.list("");
  return entries.flatMap(([key, value]) => (key.includes(under) ? [latin(value)] : [])).join("\n");
}

function latin(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}
