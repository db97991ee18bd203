/**
 * One document as this page has it: the Automerge document, the cursor, and the changes that the server has not confirmed.
 * What comes from outside is merged here and nowhere else; whatever Automerge throws comes out as a `Fault`, and the document
 * is then built anew. The unconfirmed changes are kept as bytes beside it, so nothing that happens to the document loses them.
 */
import * as A from "@automerge/automerge";
import type { Cursor, Hash } from "../wire/messages.js";
import { PendingChanges, sumOf, type Content, type Pending } from "./pending.js";

/** Why the replica could not take what came: bytes that make no whole document, or a panic of Automerge. */
export class Fault extends Error {
  override readonly name = "Fault";
}

/** The visible document before and after, and what is between them. */
export interface Step {
  readonly before: A.Doc<unknown>;
  readonly after: A.Doc<unknown>;
  readonly patches: A.Patch[];
}

/** One document. */
export class Replica {
  doc: A.Doc<unknown>;
  /** What the document covers of the server's log; undefined until the first resync. */
  cursor: Cursor | undefined;
  readonly pending = new PendingChanges();
  /** Every actor that this page wrote with or sends for, to find own changes after a reset. */
  readonly actors = new Set<string>();
  /** Automerge panicked, and the document cannot be written to until it was fetched anew. */
  broken = false;

  constructor(actor: string) {
    this.doc = A.init({ actor });
    this.actors.add(actor);
  }

  get heads(): A.Heads {
    return A.getHeads(this.doc);
  }

  holds(hash: Hash): boolean {
    return A.hasHeads(this.doc, [hash]);
  }

  /** Runs a local change. Gives what is new; nothing if the function changed nothing. What the function throws passes. */
  change(make: (doc: A.Doc<unknown>) => A.Doc<unknown>): { readonly step: Step; readonly made: Content[] } {
    const before = this.doc;
    const heads = this.heads;
    const after = make(before);
    this.doc = after;
    const made = guarded(() => contentsSince(after, heads));
    for (const { actor } of made) this.actors.add(actor);
    return { step: { before, after, patches: [] }, made };
  }

  /** Puts the document back to `heads` after a change that failed half done. */
  withdraw(heads: A.Heads, actor: string): void {
    try {
      this.doc = A.clone(A.view(this.doc, heads), { actor });
    } catch {
      this.broken = true;
    }
  }

  /** Merges change chunks in one call. */
  merge(chunks: readonly Uint8Array[]): Step {
    return this.#merged((doc, patchCallback) => A.applyChanges(doc, chunks as Uint8Array[], { patchCallback })[0]);
  }

  /** Merges whole chunks of any type that stand one behind another. */
  load(chunks: Uint8Array): Step {
    return this.#merged((doc, patchCallback) =>
      chunks.length === 0 ? doc : A.loadIncremental(doc, chunks, { patchCallback }),
    );
  }

  /**
   * The heads of the document without the unconfirmed changes. These are always on top: the server cannot have merged what
   * stands on a change that it lacks.
   */
  confirmedHeads(): Hash[] {
    const candidates = new Set<Hash>(this.heads);
    for (const pending of this.pending.values()) for (const dep of pending.deps) candidates.add(dep);
    const known = [...candidates].filter((hash) => !this.pending.has(hash) && this.holds(hash));
    if (known.length < 2) return known;
    const isHead = (hash: Hash) => {
      const others = known.filter((other) => other !== hash);
      return A.getChangesMetaSince(this.doc, others).some((meta) => meta.hash === hash);
    };
    return known.filter(isHead);
  }

  /** Whether the document is at `heads`, but for unconfirmed changes. */
  standsAt(heads: readonly Hash[]): boolean {
    return this.beyond(heads).every((hash) => this.pending.has(hash));
  }

  /** The changes that `heads`, all of which are held, do not cover; dependencies first. */
  beyond(heads: readonly Hash[]): Hash[] {
    return A.getChangesMetaSince(this.doc, heads as Hash[]).map((meta) => meta.hash);
  }

  /** Puts the document back to `heads` and the unconfirmed changes that are left, and goes on as `actor`. */
  rebuild(heads: readonly Hash[], actor: string): Step {
    const before = this.doc;
    this.doc = guarded(() => A.clone(A.view(before, heads as Hash[]), { actor }));
    this.actors.add(actor);
    this.merge([...this.pending.values()].map((pending) => pending.bytes));
    return { before, after: this.doc, patches: patchesBetween(before, this.doc) };
  }

  /** Puts the document that `chunks` make in the place of the present one, without any unconfirmed change. */
  replace(chunks: Uint8Array, actor: string): A.Doc<unknown> {
    const former = this.doc;
    const fresh = new Replica(actor);
    fresh.load(chunks);
    this.doc = fresh.doc;
    this.actors.add(actor);
    this.broken = false;
    return former;
  }

  /** After a fault: a copy that was saved and loaded is sound; without one nothing can be written. */
  salvage(actor: string): void {
    if (this.broken) return;
    try {
      const copy = guarded(() => A.load<unknown>(A.save(this.doc), { actor }));
      if (!sameHeads(A.getHeads(copy), this.heads)) throw new Fault("the copy is another document");
      this.doc = copy;
      this.actors.add(actor);
    } catch {
      this.broken = true;
    }
  }

  #merged(merge: (doc: A.Doc<unknown>, patchCallback: A.PatchCallback<unknown>) => A.Doc<unknown>): Step {
    const before = this.doc;
    const patches: A.Patch[] = [];
    const after = guarded(() => merge(before, (more) => void patches.push(...more)));
    // Automerge keeps a change without what it depends on aside, without bound.
    if (guarded(() => A.getMissingDeps(after, [])).length > 0) throw new Fault("changes without what they depend on");
    this.doc = after;
    return { before, after, patches };
  }
}

/** Runs `work` on bytes from outside. */
export function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw error instanceof Fault ? error : new Fault("Automerge could not take what came", { cause: error });
  }
}

/** The changes that `heads` do not cover, with their bytes; dependencies first. */
export function contentsSince(doc: A.Doc<unknown>, heads: A.Heads): Content[] {
  const metas = A.getChangesMetaSince(doc, heads);
  if (metas.length === 0) return [];
  // In the same order. Checksums alone would not tell: among tens of thousands of changes two have the same.
  const chunks = A.getChangesSince(doc, heads);
  return metas.map(({ hash, actor, seq, deps, startOp, maxOp }, at) => {
    const bytes = chunks[at]!;
    if (sumOf(bytes) !== Number.parseInt(hash.slice(0, 8), 16)) throw new Fault("the changes are in another order than their hashes");
    return { hash, actor, seq, deps, ops: Math.max(maxOp - startOp + 1, 0), bytes };
  });
}

/** What a change chunk says of itself. */
export function contentOf(chunk: Uint8Array): Content {
  const { hash, actor, seq, deps, ops } = guarded(() => A.decodeChange(chunk));
  if (hash === null) throw new Fault("a change without a hash");
  return { hash, actor, seq, deps, ops: ops.length, bytes: chunk };
}

export function sameHeads(a: readonly Hash[], b: readonly Hash[]): boolean {
  return a.length === b.length && [...a].sort().join() === [...b].sort().join();
}

/** What turns one document into another, with or without common history. */
export function patchesBetween(before: A.Doc<unknown>, after: A.Doc<unknown>): A.Patch[] {
  try {
    const [from, to] = [A.getHeads(before), A.getHeads(after)];
    if (A.hasHeads(before, to)) return A.diff(before, from, to);
    if (A.hasHeads(after, from)) return A.diff(after, from, to);
    return A.diff(A.merge(A.clone(before), A.clone(after)), from, to);
  } catch {
    const gone = Object.keys(before as object).map((key): A.Patch => ({ action: "del", path: [key] }));
    return [...gone, ...A.diff(after, [], A.getHeads(after))];
  }
}

export type { Content, Pending };
