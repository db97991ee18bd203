/**
 * The documents that the components of an app use. Each is open once, however many components use it, from the first that mounts to
 * the last that unmounts; one that unmounts and mounts again at once (StrictMode, a move in the tree) finds it still open. Nothing
 * here is React's; nothing is opened while React renders.
 */
import type { Doc } from "@automerge/automerge";
import type { Client } from "../client.js";
import type { DocHandle } from "../handle.js";
import type { DocumentStatus, Other, Safety } from "../status.js";

/** What a component sees of a document. A new object whenever something of it has changed. */
export interface DocumentView<T> {
  /** The document, once there is one to show. */
  readonly doc: Doc<T> | undefined;
  readonly status: DocumentStatus;
  readonly safety: Safety;
  /** Own changes that the server has not acknowledged. */
  readonly unsyncedChanges: number;
  /** For all else; undefined until the component has mounted. */
  readonly handle: DocHandle<T> | undefined;
}

/** The documents of one client. */
export class Documents {
  readonly #client: Client;
  readonly #used = new Map<string, UsedDocument>();

  constructor(client: Client) {
    this.#client = client;
  }

  /** Throws what opening it threw. */
  view<T>(documentId: string): DocumentView<T> {
    const document = this.#used.get(documentId);
    if (document?.failure !== undefined) throw document.failure;
    return (document?.view ?? OPENING) as DocumentView<T>;
  }

  others<State>(documentId: string): readonly Other<State>[] {
    return (this.#used.get(documentId)?.others ?? NOBODY) as readonly Other<State>[];
  }

  /** Shows `state` to the others for as long as somebody uses the document. */
  show(documentId: string, state: unknown): void {
    this.#used.get(documentId)?.show(state);
  }

  /**
   * Uses the document, and calls `changed` whenever its view or who is there has changed, until the function that comes back is
   * called.
   */
  use(documentId: string, initial: unknown, changed: () => void): () => void {
    const document = this.#used.get(documentId) ?? this.#begin(documentId);
    const user: User = { changed, initial };
    document.join(user);
    return () => document.leave(user);
  }

  #begin(documentId: string): UsedDocument {
    const open = (initial: unknown): DocHandle<unknown> => this.#client.open<unknown>(documentId, initial === undefined ? {} : { initial });
    const document = new UsedDocument(open, () => {
      if (this.#used.get(documentId) === document) this.#used.delete(documentId);
    });
    this.#used.set(documentId, document);
    return document;
  }
}

const DOCUMENTS = new WeakMap<Client, Documents>();

/** The documents of a client: the same for all components, in whatever providers. */
export function documentsOf(client: Client): Documents {
  const known = DOCUMENTS.get(client);
  if (known !== undefined) return known;
  const documents = new Documents(client);
  DOCUMENTS.set(client, documents);
  return documents;
}

/** How a component that has not mounted yet sees every document. */
const OPENING: DocumentView<unknown> = { doc: undefined, status: { state: "opening" }, safety: "durable", unsyncedChanges: 0, handle: undefined };

const NOBODY: readonly Other<never>[] = [];

interface User {
  readonly changed: () => void;
  readonly initial: unknown;
}

/** A document with at least one user, or that has lost its last one in this turn of the event loop. */
class UsedDocument {
  view: DocumentView<unknown> = OPENING;
  others: readonly Other[] = NOBODY;
  failure: unknown;
  readonly #open: (initial: unknown) => DocHandle<unknown>;
  readonly #closed: () => void;
  readonly #users = new Set<User>();
  #handle: DocHandle<unknown> | undefined;
  #shown: unknown;
  /** Nobody may join any more. */
  #hasEnded = false;
  #ends: Array<() => void> = [];

  constructor(open: (initial: unknown) => DocHandle<unknown>, closed: () => void) {
    this.#open = open;
    this.#closed = closed;
  }

  /** Opened when all components that mount together have said how it begins: children mount before their parents. */
  join(user: User): void {
    this.#users.add(user);
    if (this.#handle === undefined) queueMicrotask(() => this.#begin());
  }

  leave(user: User): void {
    this.#users.delete(user);
    if (this.#users.size === 0) setTimeout(() => this.#end(), 0);
  }

  show(state: unknown): void {
    this.#shown = state;
    this.#handle?.presence.set(state);
  }

  #begin(): void {
    if (this.#handle !== undefined || this.failure !== undefined || this.#users.size === 0) return;
    try {
      this.#follow(this.#open([...this.#users].find((user) => user.initial !== undefined)?.initial));
    } catch (error) {
      this.failure = error;
    }
    this.#tell();
  }

  #follow(handle: DocHandle<unknown>): void {
    this.#handle = handle;
    const look = (): void => this.#look(handle);
    this.#ends = [
      handle.on("change", look),
      handle.on("status", look),
      handle.on("safety", look),
      handle.presence.on("change", (others) => this.#met(others)),
    ];
    this.view = viewOf(handle);
    this.others = [...handle.presence.others.values()];
    if (this.#shown !== undefined) handle.presence.set(this.#shown);
    // A refusal is told by the status.
    handle.whenReady().then(look, look);
  }

  /** Asked for by each last leave: one that was followed by a return is in vain, and of two only one ends it. */
  #end(): void {
    if (this.#users.size > 0 || this.#hasEnded) return;
    this.#hasEnded = true;
    for (const end of this.#ends.splice(0)) end();
    this.#closed();
    // What could not be stored has been told as an error of the client.
    this.#handle?.close().catch(() => undefined);
    this.#handle = undefined;
  }

  #look(handle: DocHandle<unknown>): void {
    if (this.#handle !== handle) return;
    this.view = viewOf(handle);
    this.#tell();
  }

  #met(others: ReadonlyMap<number, Other>): void {
    this.others = [...others.values()];
    this.#tell();
  }

  #tell(): void {
    for (const user of [...this.#users]) user.changed();
  }
}

function viewOf<T>(handle: DocHandle<T>): DocumentView<T> {
  const { status, safety, unsyncedChanges } = handle;
  return { doc: handle.isReady ? handle.doc() : undefined, status, safety, unsyncedChanges, handle };
}
