/**
 * The changes in the document that the server has not confirmed, dependencies first: this page's own, and those of other
 * pages of the same origin. All operations take time in proportion to what they touch.
 */
import * as A from "@automerge/automerge";
import type { Hash } from "../wire/messages.js";

/** One change without an answer. */
export interface Pending {
  readonly hash: Hash;
  readonly actor: string;
  readonly seq: number;
  readonly deps: readonly Hash[];
  /** Operations in it. */
  readonly ops: number;
  /** The chunk as it goes over the wire. */
  readonly bytes: Uint8Array;
  /**
   * Whose it is: `own` is stored in this page's queue; `brought` was confirmed once, and the server has lost it; `sibling` is in
   * another page's queue, and sent only with what stands on it; `abandoned` was such a one, and that page is gone, or gave it up
   * after it was sent from here, too: only the server can say what becomes of it.
   */
  origin: "own" | "brought" | "sibling" | "abandoned";
  /** Its key in the queue; empty unless `own`. */
  key: string;
  /** Whose queue it is in; empty unless `sibling`. */
  readonly page: string;
  /** The subject whose change it is; null if not known. */
  user: string | null;
  remade: boolean;
  /** Whether the storage has it: what is `own` is sent once it has, or has failed, and then it is in this page only. */
  readonly stored: "not yet" | "failed" | "yes";
  /** The edit that carries it on this connection. */
  edit: number | undefined;
  /** Whether it was ever sent by this page: then the server may have it. */
  sent: boolean;
  /** An edit with it and others was above a limit: it goes alone. */
  alone?: boolean;
  /** Grows with each change that is made; what is made anew keeps the number of what it replaces. */
  readonly serial: number;
}

/** A change, before it is known whose it is. */
export type Content = Pick<Pending, "hash" | "actor" | "seq" | "deps" | "ops" | "bytes">;

/** The smallest serial: what the server has lost and what is made anew stands in front of older ones. */
export function oldestOf(changes: ReadonlyArray<Pick<Pending, "serial">>): number {
  return changes.reduce((oldest, { serial }) => Math.min(oldest, serial), Infinity);
}

/** The checksum of a chunk: the first 32 bits of its change's hash. */
export function sumOf(chunk: Uint8Array): number {
  return chunk.length < 8 ? -1 : new DataView(chunk.buffer, chunk.byteOffset).getUint32(4);
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

function hashOf(chunk: Uint8Array): Hash | undefined {
  try {
    return A.decodeChange(chunk).hash ?? undefined;
  } catch {
    return undefined;
  }
}

/** All of them. */
export class PendingChanges {
  readonly #byHash = new Map<Hash, Pending>();
  readonly #bySum = new Map<number, Pending>();
  #mine = 0;
  #mineBytes = 0;
  #siblings = 0;
  #brought = 0;
  #sent = 0;
  #unstored = 0;

  /** How many this page has to bring to the server. */
  get mine(): number {
    return this.#mine;
  }

  /** How many of those no edit carries. */
  get unsent(): number {
    return this.#mine - this.#sent;
  }

  /** How many of those the storage does not have. */
  get unstored(): number {
    return this.#unstored;
  }

  get mineBytes(): number {
    return this.#mineBytes;
  }

  get siblings(): number {
    return this.#siblings;
  }

  /** How many the server had, and has lost. */
  get brought(): number {
    return this.#brought;
  }

  get size(): number {
    return this.#byHash.size;
  }

  get(hash: Hash): Pending | undefined {
    return this.#byHash.get(hash);
  }

  has(hash: Hash): boolean {
    return this.#byHash.has(hash);
  }

  /** Dependencies first. */
  values(): IterableIterator<Pending> {
    return this.#byHash.values();
  }

  /** Puts a change behind all others. It is not there yet. */
  add(pending: Pending): void {
    this.#byHash.set(pending.hash, pending);
    this.#bySum.set(Number.parseInt(pending.hash.slice(0, 8), 16), pending);
    this.#count(pending, 1);
  }

  delete(hash: Hash): Pending | undefined {
    const pending = this.#byHash.get(hash);
    if (pending === undefined) return undefined;
    this.#byHash.delete(hash);
    this.#bySum.delete(Number.parseInt(hash.slice(0, 8), 16));
    this.#count(pending, -1);
    return pending;
  }

  /** A sibling's change is this page's now. */
  adopt(pending: Pending, key: string, user: string | null, remade: boolean): void {
    this.#count(pending, -1);
    Object.assign(pending, { origin: "own", key, user, remade, stored: "yes" });
    this.#count(pending, 1);
  }

  /** A sibling's change is nobody's now, and sent until there is an answer. */
  abandon(pending: Pending): void {
    this.#count(pending, -1);
    pending.origin = "abandoned";
    this.#count(pending, 1);
  }

  /** The change that this chunk is. Its checksum finds it; but different changes may have the same, and one change two forms. */
  matching(chunk: Uint8Array): Pending | undefined {
    const pending = this.#bySum.size === 0 ? undefined : this.#bySum.get(sumOf(chunk));
    return pending !== undefined && (sameBytes(pending.bytes, chunk) || hashOf(chunk) === pending.hash) ? pending : undefined;
  }

  /** Takes out those that `refused` names and all that stand on them, dependencies first. */
  cut(refused: (pending: Pending) => boolean): Pending[] {
    const hashes = new Set<Hash>();
    const actors = new Set<string>();
    const taken: Pending[] = [];
    for (const pending of this.#byHash.values()) {
      const stands = actors.has(pending.actor) || pending.deps.some((dep) => hashes.has(dep));
      if (!stands && !refused(pending)) continue;
      hashes.add(pending.hash);
      actors.add(pending.actor);
      taken.push(pending);
    }
    for (const { hash } of taken) this.delete(hash);
    return taken;
  }

  /** Takes all out. */
  clear(): Pending[] {
    return this.cut(() => true);
  }

  /** The storage has the change, or could not take it. */
  store(pending: Pending, stored: "failed" | "yes"): void {
    this.#count(pending, -1);
    Object.assign(pending, { stored });
    this.#count(pending, 1);
  }

  /** An edit carries the change now; undefined takes it back. */
  send(pending: Pending, edit: number | undefined): void {
    this.#count(pending, -1);
    pending.edit = edit;
    pending.sent ||= edit !== undefined;
    this.#count(pending, 1);
  }

  /** The connection is gone: nothing is under way. */
  unsend(): void {
    for (const pending of this.#byHash.values()) if (pending.edit !== undefined) this.send(pending, undefined);
  }

  /** The smallest serial of what this page has to bring to the server. */
  oldestSerial(): number {
    return oldestOf([...this.#byHash.values()].filter(({ origin }) => origin !== "sibling"));
  }

  #count(pending: Pending, by: 1 | -1): void {
    if (pending.origin === "sibling") {
      this.#siblings += by;
      return;
    }
    this.#mine += by;
    if (pending.origin === "brought") this.#brought += by;
    this.#mineBytes += by * pending.bytes.length;
    if (pending.edit !== undefined) this.#sent += by;
    if (pending.stored !== "yes") this.#unstored += by;
  }
}
