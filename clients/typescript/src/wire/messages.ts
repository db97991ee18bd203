/** The messages of the native protocol, version 1, as protocol/SPEC.md has them. Types and numbers only. */

export const VERSION = 1;
export const SUBPROTOCOL = "syncline.v1";
/** Heads that a message may name. */
export const HEADS_MAX = 10_000;
/** Changes in one edit. */
export const EDIT_CHANGES_MAX = 10_000;
export const RUNS_MAX = 100_000;
export const DIFF_CHANGES_MAX = 100_000;
export const ENTRIES_MAX = 10_000;
export const CAPABILITIES_MAX = 64;

/** A place in a document's log: one life of the log, and a position in it. */
export type Cursor = readonly [epoch: number, position: number];
/** A change hash in hexadecimal digits. */
export type Hash = string;

/** What the server keeps a client to; 0 is "not announced". */
export interface Limits {
  readonly frame_bytes_max: number;
  readonly edits_per_second: number;
  readonly presence_per_second: number;
  readonly presence_bytes_max: number;
  readonly presence_ttl_ms: number;
  readonly ops_per_change_max: number;
  readonly documents_per_session_max: number;
  readonly idle_timeout_ms: number;
}

export const LIMIT_NAMES = [
  "frame_bytes_max",
  "edits_per_second",
  "presence_per_second",
  "presence_bytes_max",
  "presence_ttl_ms",
  "ops_per_change_max",
  "documents_per_session_max",
  "idle_timeout_ms",
] as const satisfies ReadonlyArray<keyof Limits>;

export interface Run {
  readonly session: number;
  readonly changes: readonly Uint8Array[];
}

export interface PresenceEntry {
  readonly session: number;
  readonly subject: string;
  readonly name: string | null;
  readonly state: Uint8Array | null;
}

export interface Opened {
  readonly type: "opened";
  readonly room: number;
  readonly document: string;
  readonly access: "read" | "write";
  readonly heads: readonly Hash[];
  readonly cursor: Cursor;
  readonly base: "replica" | "nothing";
  readonly bytes: number;
}

export interface Part {
  readonly type: "part";
  readonly room: number;
  readonly packing: "plain" | "deflate";
  readonly bytes: Uint8Array;
  readonly end: Cursor | null;
}

export interface Diff {
  readonly type: "diff";
  readonly room: number;
  readonly cursor: Cursor;
  readonly runs: readonly Run[];
}

export interface Closed {
  readonly type: "closed";
  readonly room: number | null;
  readonly document: string;
  readonly code: string;
  readonly text: string;
}

export interface Welcome {
  readonly type: "welcome";
  readonly session: number;
  readonly limits: Limits;
  readonly capabilities: readonly string[];
}

export type ServerMessage =
  | Welcome
  | Opened
  | Part
  | Diff
  | { readonly type: "ack"; readonly room: number; readonly id: number; readonly cursor: Cursor }
  | { readonly type: "reject"; readonly room: number; readonly id: number; readonly code: string; readonly text: string }
  | { readonly type: "presence"; readonly room: number; readonly entries: readonly PresenceEntry[] }
  | { readonly type: "signal"; readonly room: number; readonly session: number; readonly payload: Uint8Array }
  | Closed
  | { readonly type: "retry"; readonly after_ms: number }
  | { readonly type: "error"; readonly code: number; readonly text: string };

export type ClientMessage =
  | {
      readonly type: "hello";
      readonly version: number;
      readonly token: string | null;
      readonly client: string;
      readonly capabilities: readonly string[];
    }
  | { readonly type: "auth"; readonly token: string }
  | { readonly type: "open"; readonly document: string; readonly cursor: Cursor | null; readonly heads: readonly Hash[] }
  | { readonly type: "edit"; readonly room: number; readonly id: number; readonly changes: readonly Uint8Array[] }
  | { readonly type: "presence"; readonly room: number; readonly state: Uint8Array | null }
  | { readonly type: "signal"; readonly room: number; readonly payload: Uint8Array }
  | { readonly type: "leave"; readonly room: number };

/** Whether a text is a document id ([D1]). */
export function isDocumentId(text: string): boolean {
  return (
    text.length >= 1 &&
    text.length <= 128 &&
    /^[A-Za-z0-9._/-]+$/.test(text) &&
    text.split("/").every((part) => part !== "" && part !== "..")
  );
}
