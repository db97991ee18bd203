/** One open document, as an application sees it. */
import * as A from "@automerge/automerge";
import type { ChangeFn, ChangeOptions, Doc, Heads, State } from "@automerge/automerge";
import { Emitter } from "./emitter.js";
import { ChangeError, type DocHandleEvents, type DocumentStatus, type Draft, type Other, type Safety } from "./status.js";
import type { Listener, OpenDocument } from "./shell/open-document.js";
import type { Shell } from "./shell/shell.js";

/** Who else is here. States are JSON values. */
export interface Presence {
  /** Shows `state` to the others, throttled; undefined takes it back. */
  set(state: unknown): void;
  /** By session: two windows of one person are two. */
  readonly others: ReadonlyMap<number, Other>;
  on(event: "change", handler: (others: ReadonlyMap<number, Other>) => void): () => void;
}

/** The refused changes of a document. */
export interface Drafts<T> {
  list(): readonly Draft[];
  /** The Automerge change chunks of a draft, oldest first. */
  export(id: string): Uint8Array[];
  /** The document as it would be with the draft; undefined if it does not fit any more. */
  preview(id: string): Doc<T> | undefined;
  /** Makes the draft's changes anew on the document as it is now; the draft is then gone. False if it does not fit any more. */
  makeAnew(id: string): boolean;
  drop(id: string): void;
}

interface Waiter {
  readonly serial: number;
  resolve(): void;
  reject(error: Error): void;
}

/** One open document. `client.open` gives it. */
export class DocHandle<T> {
  readonly documentId: string;
  readonly presence: Presence;
  readonly drafts: Drafts<T>;
  readonly #shell: Shell;
  readonly #document: OpenDocument;
  readonly #events: Emitter<DocHandleEvents<T> & { presence: ReadonlyMap<number, Other> }>;
  readonly #listener: Listener;
  #closed = false;
  #others: ReadonlyMap<number, Other> | undefined;
  #status = "";
  #safety = "";
  #heads = "";
  #progress = -1;
  #waiters: Waiter[] = [];
  #readyWaiters: Array<Omit<Waiter, "serial">> = [];

  constructor(shell: Shell, document: OpenDocument) {
    this.#shell = shell;
    this.#document = document;
    this.documentId = document.id;
    this.#events = new Emitter((error) => shell.handlerFailed(error));
    this.#listener = (notice) => this.#hear(notice);
    document.listen(this.#listener);
    this.presence = this.#makePresence();
    this.drafts = this.#makeDrafts();
  }

  get status(): DocumentStatus {
    return this.#state?.status ?? { state: "opening" };
  }

  /** Whether there is a document to show: from the storage or from the server. */
  get isReady(): boolean {
    return !this.#closed && (this.#state?.ready ?? false);
  }

  /** Resolves once `isReady`; rejects if the document or the connection is refused for good, or the handle closed, before. */
  async whenReady(): Promise<void> {
    if (this.isReady) return;
    if (this.#closed) throw new ChangeError("closed", "the handle is closed");
    const refusal = this.#refusal;
    if (refusal !== undefined) throw new ChangeError("not_ready", refusal);
    await new Promise<void>((resolve, reject) => this.#readyWaiters.push({ resolve, reject }));
  }

  /** The document as it is now. Throws before it is ready. */
  doc(): Doc<T> {
    this.#checkReady();
    return this.#shell.core.doc(this.documentId) as Doc<T>;
  }

  /** Changes the document, at once; what is sent is gathered (`groupMs`). Throws a `ChangeError`, or what `fn` throws. */
  change(fn: ChangeFn<T>, options: ChangeOptions<T> = {}): void {
    this.#change((doc, patchCallback, time) => A.change(doc, { time, ...options, patchCallback }, fn));
  }

  /** Changes the document as it was at `heads`; gives the heads of the new change, null if nothing was changed. */
  changeAt(heads: Heads, fn: ChangeFn<T>, options: ChangeOptions<T> = {}): Heads | null {
    let made: Heads | null = null;
    this.#change((doc, patchCallback, time) => {
      const { newDoc, newHeads } = A.changeAt(doc, heads, { time, ...options, patchCallback }, fn);
      made = newHeads;
      return newDoc;
    });
    return made;
  }

  /** Brings the changes of another document or handle with common history in, as own ones. */
  merge(other: Doc<T> | DocHandle<T>): void {
    const from = other instanceof DocHandle ? other.doc() : other;
    this.#change((doc, patchCallback) => {
      const lacked = A.getChangesSince(from, A.getHeads(doc).filter((head) => A.hasHeads(from, [head])));
      return lacked.length === 0 ? doc : A.applyChanges(doc, lacked, { patchCallback })[0];
    });
  }

  heads(): Heads {
    return A.getHeads(this.doc());
  }

  history(): State<T>[] {
    return A.getHistory(this.doc());
  }

  /** The document as it was, to read. */
  view(heads: Heads): Doc<T> {
    return A.view(this.doc(), heads);
  }

  /**
   * How safe the own changes are. Only an answer of the server makes them durable. Of a closed handle it means nothing once the
   * client has let go of the document: that is `durable` then, whatever is left to be sent.
   */
  get safety(): Safety {
    return this.#state?.safety ?? "durable";
  }

  /** Own changes that the server has not acknowledged; of a closed handle 0 once the client has let go of the document. */
  get unsyncedChanges(): number {
    return this.#state?.unsynced ?? 0;
  }

  /**
   * Resolves when all changes made so far are on the server's disk; rejects if one of them, the document or the connection is
   * refused for good, or the handle is closed. What is not durable then is kept all the same.
   */
  async whenDurable(): Promise<void> {
    await this.#document.opened;
    // Of a document that is not here any more nobody knows what is left to be sent.
    if (this.#closed || this.#state === undefined) throw new ChangeError("closed", "the handle is closed");
    if (this.unsyncedChanges === 0) return;
    const refusal = this.#refusal;
    if (refusal !== undefined) throw notDurable(refusal);
    const serial = this.#shell.core.nextSerial;
    await new Promise<void>((resolve, reject) => this.#waiters.push({ serial, resolve, reject }));
  }

  /** Says something to all others in the room, once: a JSON value. Dropped while not connected. */
  signal(payload: unknown): void {
    this.#shell.step({ type: "signal", document: this.documentId, payload: toBytes(payload) });
  }

  /** Calls `handler` at every `event`; the function that comes back ends that. */
  on<Name extends keyof DocHandleEvents<T>>(event: Name, handler: (value: DocHandleEvents<T>[Name]) => void): () => void {
    return this.#events.on(event, handler as never);
  }

  off<Name extends keyof DocHandleEvents<T>>(event: Name, handler: (value: DocHandleEvents<T>[Name]) => void): void {
    this.#events.off(event, handler as never);
  }

  /** Lets go of the document once all is stored. Of several handles of one document the last one leaves the room. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#end();
    await this.#document.unlisten(this.#listener);
  }

  get #state() {
    return this.#shell.core.state(this.documentId);
  }

  /** Why the server takes nothing, if that is final. */
  get #refusal(): string | undefined {
    const { status } = this;
    if (status.state === "refused") return `the document is refused (${status.code}): ${status.reason}`;
    const connection = this.#shell.core.status;
    if (connection.state === "rejected") return `the connection is refused (${connection.code}): ${connection.reason}`;
    return undefined;
  }

  #checkReady(): void {
    if (this.#closed) throw new ChangeError("closed", "the handle is closed");
    if (!this.isReady) throw new ChangeError("not_ready", "the document has not come yet; await whenReady()");
  }

  #change(make: (doc: Doc<T>, patchCallback: A.PatchCallback<T>, time: number) => Doc<T>): void {
    this.#checkReady();
    this.#shell.change(this.documentId, (doc, patched, time) => make(doc as Doc<T>, (patches) => patched(patches), time));
  }

  #hear(notice: Parameters<Listener>[0]): void {
    switch (notice.type) {
      case "document":
        this.#settleWaiters();
        return this.#tellState();
      case "connection":
        return this.#settleWaiters();
      case "changed": {
        const { patches, origin } = notice;
        const [before, doc] = [notice.before as Doc<T>, notice.after as Doc<T>];
        const source = origin === "local" ? "change" : "applyChanges";
        this.#events.emit("change", { doc, patches, patchInfo: { before, after: doc, source }, origin });
        return this.#tellHeads(doc);
      }
      case "presence":
        this.#others = undefined;
        return this.#events.emit("presence", this.presence.others);
      case "signal":
        return this.#events.emit("signal", { session: notice.session, payload: fromBytes(notice.payload) });
      case "draft": {
        const error = new Error(`a change was refused (${notice.draft.code}) and is kept as a draft`);
        this.#settle(({ serial }) => serial > notice.serial, (waiter) => waiter.reject(error));
        return this.#events.emit("draft", notice.draft);
      }
      case "held": {
        const error = new Error("changes of another user are kept and not sent");
        return this.#settle(({ serial }) => serial > notice.serial, (waiter) => waiter.reject(error));
      }
      case "closed":
        return this.#end();
    }
  }

  #settleWaiters(): void {
    const refusal = this.#refusal;
    if (this.isReady) {
      for (const { resolve } of this.#readyWaiters) resolve();
      this.#readyWaiters = [];
    } else if (refusal !== undefined) {
      const error = new ChangeError("not_ready", refusal);
      for (const { reject } of this.#readyWaiters) reject(error);
      this.#readyWaiters = [];
    }
    if (this.#waiters.length === 0) return;
    const oldest = this.#shell.core.oldestSerial(this.documentId);
    this.#settle(({ serial }) => serial <= oldest, (waiter) => waiter.resolve());
    if (refusal !== undefined) this.#settle(() => true, (waiter) => waiter.reject(notDurable(refusal)));
  }

  /** Only what the document itself says: before it is there, nobody knows whether something is left to be sent. */
  #tellState(): void {
    const { status } = this;
    this.#tellProgress(status);
    const text = JSON.stringify(status);
    if (text !== this.#status) {
      this.#status = text;
      this.#events.emit("status", status);
    }
    const safety = { safety: this.safety, unsyncedChanges: this.unsyncedChanges };
    if (JSON.stringify(safety) !== this.#safety) {
      this.#safety = JSON.stringify(safety);
      this.#events.emit("safety", safety);
    }
  }

  #tellProgress(status: DocumentStatus): void {
    if (status.state !== "loading" || status.received === this.#progress) return;
    this.#progress = status.received;
    this.#events.emit("progress", { received: status.received, total: Math.max(status.total, status.received) });
  }

  #tellHeads(doc: Doc<T>): void {
    const heads = A.getHeads(doc);
    if (heads.join() === this.#heads) return;
    this.#heads = heads.join();
    this.#events.emit("heads-changed", { heads, doc });
  }

  #settle(which: (waiter: Waiter) => boolean, how: (waiter: Waiter) => void): void {
    const settled = this.#waiters.filter(which);
    if (settled.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => !which(waiter));
    settled.forEach(how);
  }

  #end(): void {
    this.#closed = true;
    const error = new ChangeError("closed", "the handle is closed");
    this.#settle(() => true, (waiter) => waiter.reject(error));
    for (const { reject } of this.#readyWaiters) reject(error);
    this.#readyWaiters = [];
    this.#events.emit("closed", undefined);
  }

  #makePresence(): Presence {
    const read = () => this.#readOthers();
    return {
      set: (state) => {
        const bytes = state === undefined ? null : toBytes(state);
        void this.#document.opened.then(() => this.#shell.step({ type: "presence", document: this.documentId, state: bytes }));
      },
      get others() {
        return read();
      },
      on: (_, handler) => this.#events.on("presence", handler as never),
    };
  }

  #readOthers(): ReadonlyMap<number, Other> {
    if (this.#others !== undefined) return this.#others;
    const shown = [...this.#shell.core.others(this.documentId)];
    const others = shown.map(([session, { subject, name, state }]) => [session, { session, subject, name, state: fromBytes(state) }] as const);
    this.#others = new Map(others);
    return this.#others;
  }

  #makeDrafts(): Drafts<T> {
    const { core } = this.#shell;
    const id = this.documentId;
    return {
      list: () => core.drafts(id).map((draft) => ({ ...draft, changes: draft.changes.length })),
      export: (draft) => core.drafts(id).find((each) => each.id === draft)?.changes.map((change) => change.slice()) ?? [],
      preview: (draft) => core.previewDraft(id, draft) as Doc<T> | undefined,
      makeAnew: (draft) => this.#shell.makeDraftAnew(id, draft),
      drop: (draft) => this.#shell.step({ type: "draft-dropped", document: id, id: draft }),
    };
  }
}

function toBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

/** What others sent: whatever it is, it must not throw. */
function fromBytes(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) as unknown;
  } catch {
    return undefined;
  }
}

function notDurable(refusal: string): Error {
  return new Error(`${refusal}; the changes are kept`);
}
