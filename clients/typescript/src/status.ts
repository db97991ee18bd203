/** Where things stand, in the words of an application. Types only. */
import type { Doc, Heads, Patch, PatchSource } from "@automerge/automerge";

/** Where the connection stands. `rejected` is final: nothing more is tried until `goOnline`. */
export type ConnectionStatus =
  | { readonly state: "connecting" }
  | { readonly state: "connected" }
  /** `retryAt` is a time as of `Date.now()`; undefined when the app has gone offline by itself. */
  | { readonly state: "offline"; readonly retryAt?: number }
  | { readonly state: "rejected"; readonly code: number; readonly reason: string };

/** What this client may do with a document. */
export type Access = "read" | "write";

/** Where a document stands with the server. */
export type DocumentStatus =
  /** Not in its room; it will be as soon as there is a connection. */
  | { readonly state: "opening" }
  | { readonly state: "loading"; readonly received: number; readonly total: number }
  | { readonly state: "live"; readonly access: Access }
  /** The server does not let it in (`forbidden`, `damaged`, `limit`, ...). Local changes are kept. */
  | { readonly state: "refused"; readonly code: string; readonly reason: string };

/**
 * How safe the own changes are: some in this page only, and gone with it; all stored in this browser, or more; all stored and
 * under way; all on the server's disk.
 */
export type Safety = "unstored" | "local" | "sent" | "durable";

/** Changes that the server refused, with all that stood on them. They are not in the document any more. */
export interface Draft {
  readonly id: string;
  /** Why, for programs: a code of `reject` in the protocol, or one that the server added later. */
  readonly code: string;
  /** Why, for people. */
  readonly reason: string;
  /** When it was put aside, as of `Date.now()`. */
  readonly at: number;
  /** How many changes it holds. */
  readonly changes: number;
}

/** Somebody else in the room. */
export interface Other<State = unknown> {
  /** Their connection; two windows of one person are two sessions. */
  readonly session: number;
  /** The subject of their token: checked by the server. */
  readonly subject: string;
  /** The name in their token: checked by the server. */
  readonly name: string | undefined;
  /** What they show. */
  readonly state: State;
}

/** Figures of the connection, counted since the client was made. */
export interface Figures {
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** From the last edit to its acknowledgement, in milliseconds; undefined before the first. */
  readonly roundTripMs: number | undefined;
}

/** What went wrong beside the document: nothing that was stored is lost, and the client goes on. */
export type ClientErrorKind =
  /** The storage failed; `cause` is a `StorageError`. Changes are sent all the same, but may not outlive the page. */
  | "storage"
  /** The server sent what is not in the protocol; the client comes back. */
  | "protocol"
  /** The token function failed; the client tries again. */
  | "token"
  /** A document could not be merged and is fetched anew. */
  | "document"
  /** A presence state or signal is larger than the server takes; it was not sent. */
  | "limit"
  /** A queue of another user is kept and not sent; see `adoptQueues`. */
  | "held"
  /** A handler of the app threw. */
  | "handler";

/** What `error` events carry. */
export class ClientError extends Error {
  override readonly name = "ClientError";
  readonly kind: ClientErrorKind;
  readonly document: string | undefined;

  constructor(kind: ClientErrorKind, message: string, document?: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
    this.document = document;
  }
}

/** Why `change` did not change anything. */
export type ChangeFault = "closed" | "not_ready" | "read_only" | "too_large" | "queue_full" | "drafts_full";

/** Thrown by `change`, `changeAt` and `merge`, the document is as before; and by what needs a handle or client that is closed. */
export class ChangeError extends Error {
  override readonly name = "ChangeError";
  readonly kind: ChangeFault;

  constructor(kind: ChangeFault, message: string) {
    super(message);
    this.kind = kind;
  }
}

/** A change of a document's content: what came since the last one, as one event. */
export interface Change<T> {
  readonly doc: Doc<T>;
  readonly patches: Patch[];
  readonly patchInfo: { readonly before: Doc<T>; readonly after: Doc<T>; readonly source: PatchSource };
  /** `local`: by this handle. `remote`: by others, other tabs included. `replaced`: the document was put back or fetched anew. */
  readonly origin: "local" | "remote" | "replaced";
}

/** The events of a handle. */
export interface DocHandleEvents<T> {
  change: Change<T>;
  "heads-changed": { readonly heads: Heads; readonly doc: Doc<T> };
  status: DocumentStatus;
  safety: { readonly safety: Safety; readonly unsyncedChanges: number };
  progress: { readonly received: number; readonly total: number };
  draft: Draft;
  signal: { readonly session: number; readonly payload: unknown };
  /** The handle was closed by the app. */
  closed: undefined;
}

/** The events of a client. */
export interface ClientEvents {
  status: ConnectionStatus;
  safety: { readonly safety: Safety; readonly unsyncedChanges: number };
  error: ClientError;
}

