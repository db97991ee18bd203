/** One open document, as an application sees it. */
import type { ChangeFn, ChangeOptions, Doc, Heads, State } from "@automerge/automerge";
import type { DocHandleEvents, DocumentStatus, Draft, Other, Safety } from "./status.js";

/** One open document. `client.open` gives it. */
export interface DocHandle<T> {
  readonly documentId: string;
  readonly status: DocumentStatus;
  /** Whether there is a document to show: from the storage or from the server. */
  readonly isReady: boolean;
  /** Resolves once `isReady`; rejects if the document is refused or closed before. */
  whenReady(): Promise<void>;
  /** The document as it is now. Throws before it is ready. */
  doc(): Doc<T>;
  /** Changes the document, at once; what is sent is gathered (`groupMs`). Throws a `ChangeError`. */
  change(fn: ChangeFn<T>, options?: ChangeOptions<T>): void;
  /** Changes the document as it was at `heads`; gives the heads of the new change. */
  changeAt(heads: Heads, fn: ChangeFn<T>, options?: ChangeOptions<T>): Heads | null;
  heads(): Heads;
  history(): State<T>[];
  /** The document as it was, to read. */
  view(heads: Heads): Doc<T>;
  /** Brings the changes of another document or handle with common history in, as own ones. */
  merge(other: Doc<T> | DocHandle<T>): void;
  readonly safety: Safety;
  /** Own changes that the server has not acknowledged. */
  readonly unsyncedChanges: number;
  /** Resolves when all changes made so far are on the server's disk; rejects if one is refused or the handle is closed. */
  whenDurable(): Promise<void>;
  readonly presence: Presence;
  readonly drafts: Drafts<T>;
  /** Says something to all others in the room, once. Dropped while not connected. */
  signal(payload: unknown): void;
  on<Name extends keyof DocHandleEvents<T>>(event: Name, handler: (value: DocHandleEvents<T>[Name]) => void): () => void;
  off<Name extends keyof DocHandleEvents<T>>(event: Name, handler: (value: DocHandleEvents<T>[Name]) => void): void;
  /** Lets go of the document once all is stored. Handles of the same document are counted: the last one leaves the room. */
  close(): Promise<void>;
}

/** Who else is here. States are any value that MessagePack can hold. */
export interface Presence {
  /** Shows `state` to the others, throttled; undefined takes it back. */
  set(state: unknown): void;
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
