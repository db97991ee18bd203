/**
 * One document on this page, among the other pages of its origin: its channel, its locks, and the queues of pages that are
 * gone. A page holds its page lock while it has the document open; whoever gets that lock later may take its queue over, and
 * reads it again first, since the page may have written at the last moment. One page holds the keeper lock and writes the
 * stored replica for all.
 */
import type { SiblingMessage, Stored } from "../core/boundary.js";
import {
  documentPrefix,
  draftsPrefix,
  editWrite,
  queuePrefix,
  queuesPrefix,
  queuedPages,
  readDraft,
  readEdit,
  readKept,
  type Kept,
  type KeptDraft,
  type KeptEdit,
  type Left,
} from "../core/kept.js";
import type { Storage, StorageWrite } from "../storage/storage.js";
import type { Channel, Lock, Tabs } from "../tabs/tabs.js";
import type { Clock } from "./clock.js";

/** Who hears of a document's other pages. */
export interface PagesEvents {
  heard(message: SiblingMessage): void;
  /** A page is gone; what it had left is this page's. */
  adopted(page: string, left: Left): void;
  appointed(stored: Stored): void;
  /** So many changes of another user are left in the storage. */
  held(count: number): void;
  failed(error: unknown): void;
}

export interface PagesOptions {
  readonly document: string;
  readonly page: string;
  /** Tells clients of other servers and storages apart. */
  readonly scope: string;
  readonly storage: Storage;
  readonly tabs: Tabs | undefined;
  readonly clock: Clock;
  /** Whose changes may be sent; null while that is not known. */
  readonly user: () => string | null;
  readonly events: PagesEvents;
}

/** What pages tell each other: of the document, and that they are there; whoever `asks` wants to know who else is. */
type Word = SiblingMessage | { readonly type: "here"; readonly page: string; readonly asks: boolean };

/** When what the storage refused is tried again. */
const RETRY_MS = 5_000;

export class Pages {
  readonly #options: PagesOptions;
  readonly #name: string;
  readonly #closed = new AbortController();
  readonly #watched = new Set<string>();
  readonly #locks: Lock[] = [];
  #channel: Channel | undefined;
  /** Messages that came before the document was read. */
  #early: Word[] | undefined = [];

  constructor(options: PagesOptions) {
    this.#options = options;
    this.#name = `syncline/${options.scope}/${encodeURIComponent(options.document)}`;
  }

  /** Joins the other pages and reads what is stored. */
  async open(): Promise<Kept> {
    const { tabs, page, storage, document } = this.#options;
    // First the ear, then the eye: what is told later was stored later.
    this.#channel = tabs?.channel(this.#name, (message) => this.#hear(message));
    if (tabs !== undefined) this.#locks.push(await tabs.lock(this.#pageLock(page), this.#closed.signal));
    let entries = await this.#list(documentPrefix(document));
    const others = [...queuedPages(document, entries)].filter((other) => other !== page);
    const adopted: KeptEdit[] = [];
    for (const other of others) adopted.push(...(await this.#adoptOrWatch(other)));
    if (others.length > 0) entries = await storage.list(documentPrefix(document)).catch(() => withAdopted(entries, adopted));
    const held = new Set(this.#heldIn(entries));
    return readKept(document, entries.filter(([key]) => !held.has(key)), (owner) => owner === page);
  }

  /** Tells what came meanwhile, and waits to become the keeper. */
  ready(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const message of early) this.#hear(message);
    this.#here(true);
    void this.#keep();
  }

  /** What a page stores at the last moment nobody is told of: so the others have to know of it before. */
  #here(asks: boolean): void {
    this.#channel?.post({ type: "here", page: this.#options.page, asks } satisfies Word);
  }

  post(message: SiblingMessage): void {
    this.#channel?.post(message);
  }

  /** Takes everything that another user has left, too. */
  async adoptAll(): Promise<void> {
    const { storage, document, page, user, events } = this.#options;
    const entries = await storage.list(documentPrefix(document));
    const others = [...queuedPages(document, entries)].filter((other) => other !== page);
    for (const other of others) {
      const edits = await this.#tryAdopt(other, true);
      if (edits !== undefined) events.adopted(other, { edits, drafts: [] });
    }
    const own = readable(await storage.list(queuePrefix(document, page)), readEdit);
    const foreign = own.filter((edit) => edit.user !== null && edit.user !== user()).map((edit) => ({ ...edit, user: user() }));
    await storage.write(foreign.map(editWrite));
    if (foreign.length > 0) events.adopted(page, { edits: foreign, drafts: [] });
  }

  close(): void {
    this.#closed.abort(new Error("the document was closed"));
    this.#channel?.close();
    for (const lock of this.#locks) lock.release();
  }

  #hear(message: unknown): void {
    const told = message as Word;
    if (this.#early !== undefined) {
      this.#early.push(told);
      return;
    }
    this.#watch(told.page);
    if (told.type !== "here") this.#options.events.heard(told);
    else if (told.asks) this.#here(false);
  }

  #pageLock(page: string): string {
    return `${this.#name}/page/${page}`;
  }

  /** Reads what is stored. If that fails now, what dead pages have left is looked for later. */
  async #list(prefix: string): Promise<Array<[string, Uint8Array]>> {
    try {
      return await this.#options.storage.list(prefix);
    } catch (error) {
      this.#again(() => this.#lookAround());
      throw error;
    }
  }

  /** Watches all pages that have something in the queue. */
  async #lookAround(): Promise<void> {
    const { document } = this.#options;
    const entries = await this.#list(queuesPrefix(document));
    for (const other of queuedPages(document, entries)) this.#watch(other);
  }

  #again(work: () => Promise<void>): void {
    this.#options.clock.after(RETRY_MS, () => {
      if (!this.#closed.signal.aborted) work().catch((error: unknown) => this.#options.events.failed(error));
    });
  }

  async #adoptOrWatch(other: string): Promise<KeptEdit[]> {
    try {
      const edits = await this.#tryAdopt(other, false);
      if (edits !== undefined) return edits;
    } catch (error) {
      this.#options.events.failed(error);
    }
    this.#watch(other);
    return [];
  }

  /** Waits until the page is gone, and takes its queue over then. */
  #watch(other: string): void {
    const { tabs, page } = this.#options;
    if (tabs === undefined || other === page || this.#watched.has(other)) return;
    this.#watched.add(other);
    this.#adoptWhenGone(tabs, other).catch((error: unknown) => {
      if (this.#closed.signal.aborted) return;
      this.#options.events.failed(error);
      this.#again(async () => this.#watch(other));
    });
  }

  async #adoptWhenGone(tabs: Tabs, other: string): Promise<void> {
    try {
      const lock = await tabs.lock(this.#pageLock(other), this.#closed.signal);
      try {
        const edits = await this.#adopt(other, false);
        this.#options.events.adopted(other, { edits, drafts: await this.#drafts() });
      } finally {
        lock.release();
      }
    } finally {
      this.#watched.delete(other);
    }
  }

  /** Takes a page's queue over if the page is gone; undefined if it is there. */
  async #tryAdopt(other: string, force: boolean): Promise<KeptEdit[] | undefined> {
    const { tabs } = this.#options;
    if (tabs === undefined) return this.#adopt(other, force);
    const lock = await tabs.tryLock(this.#pageLock(other));
    if (lock === undefined) return undefined;
    try {
      return await this.#adopt(other, force);
    } finally {
      lock.release();
    }
  }

  /** Moves what a page has left into this page's queue, in one batch. */
  async #adopt(other: string, force: boolean): Promise<KeptEdit[]> {
    const { storage, document, page, user, events } = this.#options;
    const found = await storage.list(queuePrefix(document, other));
    const held = force ? new Set<string>() : new Set(this.#heldIn(found));
    if (held.size > 0) events.held(held.size);
    const moved = readable(found.filter(([key]) => !held.has(key)), readEdit).map((edit) => {
      const name = edit.key.slice(edit.key.lastIndexOf("/") + 1);
      const key = queuePrefix(document, page) + (name.includes("-") ? name : `${other}-${name}`);
      return { from: edit.key, to: { ...edit, key, user: force ? user() : edit.user } };
    });
    if (moved.length === 0) return [];
    await storage.write(moved.flatMap(({ from, to }): StorageWrite[] => [{ remove: from }, editWrite(to)]));
    return moved.map(({ to }) => to);
  }

  /** Those that can be read; the others were reported when the document was opened. */
  async #drafts(): Promise<KeptDraft[]> {
    const { storage, document } = this.#options;
    const found = await storage.list(draftsPrefix(document)).catch(() => []);
    return readable(found, readDraft);
  }

  #heldIn(entries: ReadonlyArray<[string, Uint8Array]>): string[] {
    const user = this.#options.user();
    const queues = queuesPrefix(this.#options.document);
    const edits = readable(entries.filter(([key]) => key.startsWith(queues)), readEdit);
    return user === null ? [] : edits.filter((edit) => edit.user !== null && edit.user !== user).map(({ key }) => key);
  }

  /** One page writes the stored replica: this one, as soon as no other does. */
  async #keep(): Promise<void> {
    const { tabs, events } = this.#options;
    try {
      if (tabs !== undefined) this.#locks.push(await tabs.lock(`${this.#name}/keeper`, this.#closed.signal));
      if (this.#closed.signal.aborted) return this.close();
      await this.#appoint();
    } catch (error) {
      if (!this.#closed.signal.aborted) events.failed(error);
    }
  }

  async #appoint(): Promise<void> {
    const { storage, document, events } = this.#options;
    try {
      const { stored } = readKept(document, await storage.list(documentPrefix(document)), () => false);
      if (stored !== null) events.appointed(stored);
    } catch (error) {
      // This page holds the lock: as long as it does not write, none does.
      this.#again(() => this.#appoint());
      throw error;
    }
  }
}

function readable<T>(entries: ReadonlyArray<[string, Uint8Array]>, read: (key: string, value: Uint8Array) => T): T[] {
  return entries.flatMap(([key, value]) => {
    try {
      return [read(key, value)];
    } catch {
      // It stays where it is; `readKept` reports it.
      return [];
    }
  });
}

/** What is stored after queues were adopted, where it cannot be read again. */
function withAdopted(entries: ReadonlyArray<[string, Uint8Array]>, adopted: readonly KeptEdit[]): Array<[string, Uint8Array]> {
  const own = adopted.map(editWrite).flatMap((write): Array<[string, Uint8Array]> => ("put" in write ? [[write.put, write.value]] : []));
  return [...entries, ...own];
}
