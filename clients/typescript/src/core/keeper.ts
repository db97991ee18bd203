/**
 * Writes the stored replica: chunks as they came, a snapshot now and then, the cursor always in the same batch. One page of an
 * origin does it for all. An own change leaves the queue in the batch that stores what covers it, never earlier: so whatever
 * was acknowledged is in the storage twice rather than not at all.
 */
import * as A from "@automerge/automerge";
import type { StorageWrite } from "../storage/storage.js";
import type { Cursor } from "../wire/messages.js";
import type { Stored } from "./boundary.js";
import type { ClientLimits } from "./config.js";
import { chunkKey, joined, placeWrite } from "./kept.js";
import { guarded, type Replica } from "./replica.js";

/** A confirmed change that is still in the queue, and the cursor that covers it. */
interface Covered {
  readonly key: string;
  readonly cursor: Cursor;
  /** The next batch of the replica holds the change itself, before its cursor is reached. */
  readonly inReplica: boolean;
}

/** One document's. */
export class Keeper {
  readonly #document: string;
  readonly #limits: ClientLimits;
  /** Whether this page is the one that writes. */
  #keeps = false;
  #generation = 0;
  #keys: readonly string[] = [];
  /** What the storage covers. */
  #stored: Cursor | undefined;
  /** Where the replica with all of `#unkept` stands. */
  #reached: Cursor | undefined;
  #unkept: Uint8Array[] = [];
  #unkeptBytes = 0;
  /** What is stored does not lead to what is here: the whole is written next. */
  #snapshotDue = false;
  #covered: Covered[] = [];
  #dueAt: number | undefined;
  /** A batch is out. */
  #writing: { readonly cursor: Cursor | undefined; readonly covered: readonly Covered[] } | undefined;

  constructor(document: string, limits: ClientLimits) {
    this.#document = document;
    this.#limits = limits;
  }

  get nextWakeup(): number | undefined {
    return this.#writing === undefined ? this.#dueAt : undefined;
  }

  /** The document was made from what is stored; with null, from nothing. */
  loaded(stored: Stored | null): void {
    this.#generation = stored?.generation ?? 0;
    this.#keys = stored?.keys ?? [];
    this.#stored = stored?.cursor;
    this.#reached = stored?.cursor;
    this.#snapshotDue = stored?.cursor === undefined;
  }

  /** This page writes from now on, or no more; `stored` was read after it had become the one. */
  appointed(now: number, stored: Stored | null): void {
    this.#keeps = stored !== null;
    if (stored === null) return;
    if (stored.generation !== this.#generation || !sameCursor(stored.cursor, this.#stored)) this.#snapshotDue = true;
    this.#generation = stored.generation;
    this.#keys = stored.keys;
    this.#stored = stored.cursor;
    this.#due(now);
  }

  /** The replica has taken chunks of the log in, up to `cursor`. */
  took(now: number, chunks: readonly Uint8Array[], cursor: Cursor): void {
    this.#reached = cursor;
    if (!this.#keeps) {
      this.#snapshotDue = true;
      return;
    }
    // A bundle is no form of storage ([O28]): the document is stored as a snapshot then.
    if (chunks.some(holdsBundle)) this.replaced();
    this.#wait(chunks);
    this.#due(now, this.#unkeptBytes > this.#limits.unkeptBytesMax);
  }

  /** Chunks wait for the next batch. Where it does not come, and they become too many, a snapshot takes their place. */
  #wait(chunks: readonly Uint8Array[]): void {
    if (this.#snapshotDue) return;
    this.#unkept.push(...chunks);
    this.#unkeptBytes += chunks.reduce((bytes, chunk) => bytes + chunk.length, 0);
    if (this.#unkeptBytes > this.#limits.stuckBytesMax) this.replaced();
  }

  /** The replica was built anew. */
  replaced(): void {
    this.#snapshotDue = true;
    this.#unkept = [];
    this.#unkeptBytes = 0;
  }

  /** A change of the queue is on the server, covered by `cursor`. */
  confirmed(now: number, key: string, cursor: Cursor): void {
    this.#covered.push({ key, cursor, inReplica: false });
    this.#due(now);
  }

  /** Takes out what waits to leave the queue: it is looked after elsewhere. */
  takeCovered(): string[] {
    const keys = this.#covered.map(({ key }) => key);
    this.#covered = [];
    return keys;
  }

  /** The same, before the log has come so far. All that it stands on is confirmed: so it may be stored as part of the replica. */
  acknowledged(now: number, key: string, cursor: Cursor, change: Uint8Array): void {
    if (this.#keeps) this.#wait([change]);
    this.#covered.push({ key, cursor, inReplica: this.#keeps });
    this.#due(now);
  }

  /** Another page has stored the replica up to there. */
  keptElsewhere(now: number, cursor: Cursor): void {
    if (this.#keeps) return;
    this.#stored = cursor;
    this.#snapshotDue = true;
    this.#due(now);
  }

  /** The next batch, if it is time; `stored` or `failed` follows. */
  due(now: number, replica: Replica): StorageWrite[] | undefined {
    if (this.#dueAt === undefined || this.#dueAt > now || this.#writing !== undefined) return undefined;
    this.#dueAt = undefined;
    if (replica.pending.brought > 0) {
      // They stand in the stored replica under the former cursor, and nowhere else: as long as the server may lack them, both stay.
      this.#due(now);
      return undefined;
    }
    const writes = this.#replicaWrites(replica);
    const cursor = writes.length > 0 ? this.#reached : undefined;
    const stored = cursor ?? this.#stored;
    const isCovered = ({ inReplica, cursor: at }: Covered) =>
      (inReplica && writes.length > 0) || (stored !== undefined && this.#covers(stored, at));
    const covered = this.#covered.filter(isCovered);
    if (writes.length === 0 && covered.length === 0) return undefined;
    if (covered.length > 0) {
      const gone = new Set(covered);
      this.#covered = this.#covered.filter((entry) => !gone.has(entry));
    }
    this.#writing = { cursor, covered };
    return [...writes, ...covered.map(({ key }) => ({ remove: key }))];
  }

  /** The batch is stored; the cursor to tell the other pages. */
  stored(now: number): Cursor | undefined {
    const cursor = this.#writing?.cursor;
    this.#writing = undefined;
    if (cursor !== undefined) this.#stored = cursor;
    if (this.#unkept.length > 0 || this.#covered.length > 0) this.#due(now);
    return cursor;
  }

  /** Writes at the next opportunity whatever there is. */
  hurry(now: number): void {
    if (this.#unkept.length > 0 || this.#covered.length > 0 || (this.#snapshotDue && this.#keeps)) this.#dueAt = now;
  }

  #due(now: number, atOnce = false): void {
    const at = atOnce ? now : now + this.#limits.keepPauseMs;
    this.#dueAt = Math.min(this.#dueAt ?? at, at);
  }

  #replicaWrites(replica: Replica): StorageWrite[] {
    const cursor = this.#reached;
    if (!this.#keeps || cursor === undefined || replica.broken) return [];
    const behind = this.#stored !== undefined && cursor[0] === this.#stored[0] && cursor[1] < this.#stored[1];
    if (behind || (sameCursor(cursor, this.#stored) && this.#unkept.length === 0 && !this.#snapshotDue)) return [];
    const many = this.#keys.length >= this.#limits.chunksMax;
    const snapshot = this.#snapshotDue || (many && (replica.pending.size === 0 || this.#keys.length >= this.#limits.chunksMax * 4));
    const chunk = snapshot ? guarded(() => this.#snapshot(replica)) : joined(this.#unkept);
    this.#unkept = [];
    this.#unkeptBytes = 0;
    this.#snapshotDue = false;
    const removed = snapshot ? this.#keys.map((key) => ({ remove: key })) : [];
    if (snapshot) {
      this.#generation += 1;
      this.#keys = [];
    }
    if (chunk.length === 0 && this.#keys.length > 0) return [placeWrite(this.#document, cursor, this.#generation)];
    const key = chunkKey(this.#document, this.#generation, this.#keys.length);
    this.#keys = [...this.#keys, key];
    return [...removed, { put: key, value: chunk }, placeWrite(this.#document, cursor, this.#generation)];
  }

  /** Whether what is stored up to `stored` holds what `cursor` covers. In a later life of the log the join has looked after it. */
  #covers(stored: Cursor, cursor: Cursor): boolean {
    if (stored[0] === cursor[0]) return stored[1] >= cursor[1];
    return stored[0] === this.#reached?.[0];
  }

  /** The document without what the server has not confirmed. */
  #snapshot(replica: Replica): Uint8Array {
    if (replica.heads.length === 0) return new Uint8Array();
    if (replica.pending.size === 0) return A.save(replica.doc);
    const heads = replica.confirmedHeads();
    if (heads.length === 0) return new Uint8Array();
    return A.save(A.clone(A.view(replica.doc, heads)));
  }
}

const BUNDLE = 3;

/** Whether one of the Automerge chunks that stand one behind another is a bundle: magic, checksum, type, length, content. */
function holdsBundle(chunks: Uint8Array): boolean {
  for (let at = 0; at + 9 <= chunks.length; ) {
    if (chunks[at + 8] === BUNDLE) return true;
    let [length, scale] = [0, 1];
    for (at += 9; at < chunks.length; at += 1, scale *= 128) {
      length += (chunks[at]! & 0x7f) * scale;
      if (chunks[at]! < 0x80) break;
    }
    at += 1 + length;
  }
  return false;
}

export function sameCursor(a: Cursor | undefined, b: Cursor | undefined): boolean {
  return a?.[0] === b?.[0] && a?.[1] === b?.[1];
}
