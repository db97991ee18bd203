/**
 * What is stored of a document: keys and values, and nothing of when. The keys are those of one server: the storage is scoped.
 *
 * `d/<document>/m` where the replica stands; `d/<document>/r/<generation>/<n>` its chunks, a snapshot and what came after;
 * `d/<document>/q/<page>/<n>` one own change that the server may lack; `d/<document>/x/<id>` a draft.
 */
import type { StorageWrite } from "../storage/storage.js";
import type { Cursor } from "../wire/messages.js";
import { Reader, Writer } from "../wire/msgpack.js";
import type { Stored } from "./boundary.js";

const FORMAT = 1;

/** An own change in the queue. */
export interface KeptEdit {
  readonly key: string;
  /** The subject whose change it is; empty without authentication, null if it was not known yet. */
  readonly user: string | null;
  /** It was made anew already. */
  readonly remade: boolean;
  readonly change: Uint8Array;
}

/** A draft with its changes. */
export interface KeptDraft {
  readonly id: string;
  readonly code: string;
  readonly reason: string;
  readonly at: number;
  readonly changes: readonly Uint8Array[];
}

/** What a page that is gone has left of a document. */
export interface Left {
  /** Its queue. */
  readonly edits: readonly KeptEdit[];
  /** All drafts of the document: it may have written one at the last moment. */
  readonly drafts: readonly KeptDraft[];
}

/** All that was stored of a document. */
export interface Kept {
  /** Chunks, in order; undefined if there is no replica. */
  readonly replica: Uint8Array | undefined;
  readonly stored: Stored | null;
  /** This page's queue, and what it has adopted. */
  readonly own: readonly KeptEdit[];
  /** What other pages, live ones, have in their queues. */
  readonly others: readonly KeptEdit[];
  readonly drafts: readonly KeptDraft[];
  /** Entries that could not be read; they stay where they are. */
  readonly damaged: readonly string[];
}

/** What a document is when nothing was stored. */
export const nothingKept: Kept = { replica: undefined, stored: null, own: [], others: [], drafts: [], damaged: [] };

/** What all keys of a document begin with. */
export function documentPrefix(document: string): string {
  return `d/${encodeURIComponent(document)}/`;
}

/** What the keys of all queues begin with. */
export function queuesPrefix(document: string): string {
  return `${documentPrefix(document)}q/`;
}

export function queuePrefix(document: string, page: string): string {
  return `${queuesPrefix(document)}${page}/`;
}

export function editKey(document: string, page: string, number: number): string {
  return queuePrefix(document, page) + padded(number);
}

/** Whose queue a key is in. */
export function pageOf(key: string): string {
  return key.split("/")[3] ?? "";
}

export function chunkKey(document: string, generation: number, number: number): string {
  return `${documentPrefix(document)}r/${padded(generation)}/${padded(number)}`;
}

export function draftKey(document: string, id: string): string {
  return draftsPrefix(document) + id;
}

export function draftsPrefix(document: string): string {
  return `${documentPrefix(document)}x/`;
}

function padded(number: number): string {
  return String(number).padStart(12, "0");
}

export function editWrite(edit: KeptEdit): StorageWrite {
  const w = new Writer().array(4).number(FORMAT);
  if (edit.user === null) w.nil();
  else w.text(edit.user);
  return { put: edit.key, value: w.number(edit.remade ? 1 : 0).bytes(edit.change).finish() };
}

export function placeWrite(document: string, cursor: Cursor, generation: number): StorageWrite {
  const value = new Writer().array(4).number(FORMAT).number(cursor[0]).number(cursor[1]).number(generation).finish();
  return { put: `${documentPrefix(document)}m`, value };
}

export function draftWrite(document: string, draft: KeptDraft): StorageWrite {
  const w = new Writer().array(5).number(FORMAT).text(draft.code).text(draft.reason).number(draft.at);
  w.array(draft.changes.length);
  for (const change of draft.changes) w.bytes(change);
  return { put: draftKey(document, draft.id), value: w.finish() };
}

/** The pages that have something in the queue. */
export function queuedPages(document: string, entries: ReadonlyArray<[string, Uint8Array]>): Set<string> {
  const prefix = queuesPrefix(document);
  return new Set(entries.filter(([key]) => key.startsWith(prefix)).map(([key]) => pageOf(key)));
}

/** Reads all entries of a document. `owned` tells which pages' queues are this page's to send. */
export function readKept(document: string, entries: ReadonlyArray<[string, Uint8Array]>, owned: (page: string) => boolean): Kept {
  const prefix = documentPrefix(document);
  const damaged: string[] = [];
  const attempt = <T>(key: string, read: () => T): T[] => {
    try {
      return [read()];
    } catch {
      damaged.push(key);
      return [];
    }
  };
  const under = (part: string) => entries.filter(([key]) => key.startsWith(prefix + part));
  const place = under("m").flatMap(([key, value]) => attempt(key, () => readPlace(value)))[0];
  const chunks = place === undefined ? [] : under(`r/${padded(place.generation)}/`);
  const own: KeptEdit[] = [];
  const others: KeptEdit[] = [];
  for (const [key, value] of under("q/")) {
    (owned(pageOf(key)) ? own : others).push(...attempt(key, () => readEdit(key, value)));
  }
  return {
    replica: chunks.length === 0 ? undefined : joined(chunks.map(([, value]) => value)),
    stored: {
      cursor: chunks.length === 0 ? undefined : place?.cursor,
      generation: place?.generation ?? 0,
      keys: under("r/").map(([key]) => key),
    },
    own,
    others,
    drafts: under("x/").flatMap(([key, value]) => attempt(key, () => readDraft(key, value))),
    damaged,
  };
}

export function readEdit(key: string, value: Uint8Array): KeptEdit {
  const r = versioned(value, 4);
  return { key, user: r.nil() ? null : r.text(), remade: r.number(1) === 1, change: r.bytes().slice() };
}

function readPlace(value: Uint8Array): { cursor: Cursor; generation: number } {
  const r = versioned(value, 4);
  return { cursor: [r.number(), r.number()], generation: r.number() };
}

export function readDraft(key: string, value: Uint8Array): KeptDraft {
  const r = versioned(value, 5);
  const [code, reason, at] = [r.text(), r.text(), r.number()];
  const changes = Array.from({ length: r.array() }, () => r.bytes().slice());
  return { id: key.slice(key.lastIndexOf("/") + 1), code, reason, at, changes };
}

function versioned(value: Uint8Array, fields: number): Reader {
  const reader = new Reader(value);
  if (reader.array() !== fields || reader.number() !== FORMAT) throw new RangeError("another version wrote this");
  return reader;
}

/** Chunks one behind another. */
export function joined(chunks: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(chunks.reduce((length, chunk) => length + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}
