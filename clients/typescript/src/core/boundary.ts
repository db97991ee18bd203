/** What crosses the core's boundary: events in, effects out. Times are milliseconds on a clock that never goes back. */
import type { Patch } from "@automerge/automerge";
import type { ClientErrorKind, ConnectionStatus, DocumentStatus, Draft, Safety } from "../status.js";
import type { StorageWrite } from "../storage/storage.js";
import type { Kept, Left } from "./kept.js";
import type { Cursor, Hash } from "../wire/messages.js";

/** What happened. */
export type Event =
  /** The app wants to be connected; also after a final rejection. */
  | { readonly type: "start" }
  /** The app wants the connection closed; documents stay. */
  | { readonly type: "stop" }
  | { readonly type: "connected" }
  | { readonly type: "frame"; readonly bytes: Uint8Array }
  /** The server sent a text message: the protocol has none. */
  | { readonly type: "text" }
  /** The connection is gone, or `connect` failed. Not after `disconnect`. */
  | { readonly type: "disconnected"; readonly code: number | undefined }
  /** The answer to `need-token`. */
  | { readonly type: "token"; readonly token: Token }
  | { readonly type: "token-failed"; readonly error: unknown }
  /** The app wants a document. What was stored of it is `kept`. */
  | { readonly type: "open"; readonly document: string; readonly kept: Kept; readonly initial: Uint8Array | undefined }
  | { readonly type: "close"; readonly document: string }
  /** The answers to `store`. */
  | { readonly type: "stored"; readonly document: string; readonly ticket: number }
  | { readonly type: "store-failed"; readonly document: string; readonly ticket: number; readonly error: unknown }
  /** Another page of this origin said this of the document. */
  | { readonly type: "sibling"; readonly document: string; readonly message: SiblingMessage }
  /** The page is gone, and what it had left in its queue is this page's now; its drafts are shown here, too. */
  | { readonly type: "adopted"; readonly document: string; readonly page: string; readonly left: Left }
  /** This page writes the stored replica from now on, or, with null, no more. `stored` is what is there. */
  | { readonly type: "keeper"; readonly document: string; readonly stored: Stored | null }
  /** Whose token the app has given; empty without authentication. */
  | { readonly type: "user"; readonly user: string }
  /** Write what waits to be stored at once. */
  | { readonly type: "flush"; readonly document: string }
  | { readonly type: "presence"; readonly document: string; readonly state: Uint8Array | null }
  | { readonly type: "signal"; readonly document: string; readonly payload: Uint8Array }
  | { readonly type: "draft-dropped"; readonly document: string; readonly id: string }
  /** The time of `nextWakeup` has come. */
  | { readonly type: "wake" };

/** A token and when it runs out, on the clock of the core; undefined if that is not known. */
export interface Token {
  readonly text: string;
  readonly expiresAt: number | undefined;
}

/** Where a stored replica stands, and which keys hold it. */
export interface Stored {
  readonly cursor: Cursor | undefined;
  readonly generation: number;
  readonly keys: readonly string[];
}

/** What pages tell each other of a document. */
export type SiblingMessage =
  /** Changes of the page that tells, stored in its queue. */
  | { readonly type: "edits"; readonly page: string; readonly changes: readonly Uint8Array[] }
  /** Changes of the page that tells that are not in the document any more: made anew, or refused. */
  | { readonly type: "gone"; readonly page: string; readonly hashes: readonly Hash[]; readonly remade: boolean }
  /** A draft that is not stored any more: dropped, or made anew. */
  | { readonly type: "dropped"; readonly page: string; readonly draft: string }
  /** The stored replica covers the log up to there. */
  | { readonly type: "kept"; readonly page: string; readonly cursor: Cursor };

/** What is to be done. */
export type Effect =
  /** Open the socket; answer with `connected` or `disconnected`. */
  | { readonly type: "connect" }
  /** Ask the app for a new token; answer with `token` or `token-failed`. */
  | { readonly type: "need-token" }
  | { readonly type: "send"; readonly frame: Uint8Array }
  /** Close the socket. Nothing of this connection may be handed in afterwards. */
  | { readonly type: "disconnect" }
  /**
   * Write to the storage, all or nothing, in the order of these effects, but that those which may wait may be overtaken by
   * others; answer with `stored` or `store-failed`.
   */
  | {
      readonly type: "store";
      readonly document: string;
      readonly ticket: number;
      readonly writes: readonly StorageWrite[];
      readonly mayWait: boolean;
    }
  /** Tell the other pages. */
  | { readonly type: "post"; readonly document: string; readonly message: SiblingMessage }
  | { readonly type: "notify"; readonly notice: Notice };

/** What an app may want to know. */
export type Notice =
  | { readonly type: "connection"; readonly status: ConnectionStatus }
  | { readonly type: "document"; readonly document: string; readonly state: DocumentState }
  | {
      readonly type: "changed";
      readonly document: string;
      readonly origin: "local" | "remote" | "replaced";
      readonly patches: Patch[];
      readonly before: unknown;
      readonly after: unknown;
    }
  | { readonly type: "presence"; readonly document: string }
  | { readonly type: "signal"; readonly document: string; readonly session: number; readonly payload: Uint8Array }
  | { readonly type: "draft"; readonly document: string; readonly draft: Draft; readonly serial: number }
  /** Changes of another user, `serial` the smallest number among them, are not this page's to send any more. */
  | { readonly type: "held"; readonly document: string; readonly serial: number }
  | { readonly type: "error"; readonly kind: ClientErrorKind; readonly document?: string; readonly text: string; readonly cause?: unknown };

/** Where a document stands. */
export interface DocumentState {
  readonly status: DocumentStatus;
  /** Whether there is something to show. */
  readonly ready: boolean;
  readonly safety: Safety;
  /** Own changes without an answer. */
  readonly unsynced: number;
}
