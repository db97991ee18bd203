/**
 * Own changes made anew when the server cannot take them as they are. `rename` is exact: the same operations on the same
 * history, only the author's name differs; it needs everything below the changes to be still there. `replay` makes what they
 * changed anew by value, at the same places as far as these exist.
 */
import * as A from "@automerge/automerge";
import type { Hash } from "../wire/messages.js";
import { guarded, type Content } from "./replica.js";

/** How far the nearest element that is still there is looked for. */
const NEIGHBOURS_MAX = 1_000;

/** The same changes, dependencies first, each author under a fresh name; undefined if they cannot be taken apart exactly. */
export function rename(changes: readonly Content[], freshActor: () => string): Uint8Array[] | undefined {
  const authors = new Map<string, { readonly actor: string; readonly from: number; seq: number; last: Hash | undefined }>();
  const hashes = new Map<Hash, Hash>();
  try {
    return changes.map((change) => {
      const decoded = A.decodeChange(change.bytes);
      if (!sameBytes(A.encodeChange(decoded), change.bytes)) throw new RangeError("not exact");
      const author = authors.get(change.actor) ?? { actor: freshActor(), from: decoded.startOp, seq: 0, last: undefined };
      authors.set(change.actor, author);
      author.seq += 1;
      const renamed = (id: string): string => {
        const at = id.indexOf("@");
        const named = at < 0 ? undefined : authors.get(id.slice(at + 1));
        return named !== undefined && Number(id.slice(0, at)) >= named.from ? id.slice(0, at + 1) + named.actor : id;
      };
      const deps = new Set(decoded.deps.map((dep) => hashes.get(dep) ?? dep));
      if (author.last !== undefined) deps.add(author.last);
      const anew = A.encodeChange({
        ...decoded,
        actor: author.actor,
        seq: author.seq,
        deps: [...deps].sort(),
        ops: decoded.ops.map((op) => renameOp(op, renamed)),
        hash: undefined,
      } as unknown as Parameters<typeof A.encodeChange>[0]);
      author.last = A.decodeChange(anew).hash ?? undefined;
      if (author.last === undefined) throw new RangeError("no hash");
      hashes.set(change.hash, author.last);
      return anew;
    });
  } catch {
    return undefined;
  }
}

type Op = A.DecodedChange["ops"][number];

function renameOp(op: Op, renamed: (id: string) => string): Op {
  const ids = op as { obj: string; elemId?: string; pred: string[] };
  return {
    ...op,
    obj: renamed(ids.obj),
    ...(ids.elemId === undefined ? {} : { elemId: renamed(ids.elemId) }),
    pred: ids.pred.map(renamed),
  } as Op;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

/** What came of making changes anew by value. */
export interface Replayed {
  readonly doc: A.Doc<unknown>;
  /** Whether nothing was left out. */
  readonly whole: boolean;
}

/**
 * Makes on `target` what happened in `source` between `before` and `after`, as one change. What is inserted goes behind the
 * nearest element before it that `target` has; what is to be deleted and is gone already is left.
 */
export function replay(target: A.Doc<unknown>, source: A.Doc<unknown>, before: A.Heads, after: A.Heads, time: number): Replayed {
  return guarded(() => {
    const patches = A.diff(source, before, after);
    const places = new Places(target, A.view(source, before));
    let whole = true;
    const doc = A.change(target, { time }, (writable) => {
      for (const patch of patches) {
        try {
          if (patch.action === "conflict") continue;
          for (const placed of places.place(patch)) A.applyPatch(writable, placed);
        } catch {
          whole = false;
        }
      }
    });
    return { doc, whole };
  });
}

/** Finds the places of one document in another. Patches come in the order of `diff`: ascending within each object. */
class Places {
  readonly #target: A.Doc<unknown>;
  readonly #source: A.Doc<unknown>;
  /** How much longer each sequence has become, here and in the source. */
  readonly #grown = new Map<string, { here: number; there: number }>();
  /** What this replay has made: inside it paths are the same on both sides. */
  readonly #made = new Set<string>();

  constructor(target: A.Doc<unknown>, source: A.Doc<unknown>) {
    this.#target = target;
    this.#source = source;
  }

  place(patch: A.Patch): A.Patch[] {
    const object = patch.path.slice(0, -1);
    const last = patch.path.at(-1);
    if (patch.action === "mark" || patch.action === "unmark") throw new RangeError("marks are not replayed");
    if (this.#isMade(object)) return [patch];
    this.#checkSame(object);
    if (patch.action === "put") this.#made.add(JSON.stringify(patch.path));
    if (typeof last !== "number") return patch.action === "del" && !this.#has(patch.path) ? [] : [patch];
    return this.#inSequence(patch, object, last);
  }

  #inSequence(patch: A.Patch, object: A.Prop[], index: number): A.Patch[] {
    const name = JSON.stringify(object);
    const grown = this.#grown.get(name) ?? { here: 0, there: 0 };
    this.#grown.set(name, grown);
    const origin = index - grown.there;
    const at = (place: number) => ({ ...patch, path: [...object, place + grown.here] }) as A.Patch;
    if (patch.action === "splice" || patch.action === "insert") {
      const length = patch.action === "splice" ? patch.value.length : patch.values.length;
      const placed = at(this.#behind(object, origin));
      grown.here += length;
      grown.there += length;
      return [placed];
    }
    if (patch.action !== "del") {
      const place = this.#find(object, origin);
      if (place === undefined) throw new RangeError("the element is gone");
      return [at(place)];
    }
    const placed: A.Patch[] = [];
    for (let offset = 0; offset < (patch.length ?? 1); offset += 1) {
      const place = this.#find(object, origin + offset);
      if (place !== undefined) {
        placed.push({ action: "del", path: [...object, place + grown.here] });
        grown.here -= 1;
      }
      grown.there -= 1;
    }
    return placed;
  }

  /** Where an element of the source is in the target; undefined if it is gone. */
  #find(object: A.Prop[], index: number): number | undefined {
    try {
      const cursor = A.getCursor(this.#source, object, index);
      const place = A.getCursorPosition(this.#target, object, cursor);
      return A.getCursor(this.#target, object, place) === cursor ? place : undefined;
    } catch {
      return undefined;
    }
  }

  #behind(object: A.Prop[], index: number): number {
    const last = Math.max(0, index - NEIGHBOURS_MAX);
    for (let left = index - 1; left >= last; left -= 1) {
      const place = this.#find(object, left);
      if (place !== undefined) return place + 1;
    }
    const there: unknown = this.#at(this.#target, object);
    return last === 0 ? 0 : Math.min(index, (there as { length?: number }).length ?? 0);
  }

  #isMade(path: A.Prop[]): boolean {
    return path.some((_, at) => this.#made.has(JSON.stringify(path.slice(0, at + 1))));
  }

  /** The object must be the same one on both sides, or one may have been made in its place. */
  #checkSame(object: A.Prop[]): void {
    const there = this.#at(this.#source, object);
    const here = this.#at(this.#target, object);
    const kind = (value: unknown) => (Array.isArray(value) ? "list" : typeof value);
    if (kind(there) !== kind(here)) throw new RangeError("the object is gone");
  }

  #has(path: A.Prop[]): boolean {
    const object = this.#at(this.#target, path.slice(0, -1));
    return typeof object === "object" && object !== null && path.at(-1)! in object;
  }

  #at(doc: unknown, path: A.Prop[]): unknown {
    return path.reduce<unknown>((value, prop) => (value as Record<A.Prop, unknown> | undefined)?.[prop], doc);
  }
}
