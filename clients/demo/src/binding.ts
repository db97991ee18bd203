/**
 * Keeps an editor and the document's text the same: what is typed becomes a change at once, and what others change comes in as
 * Automerge's patches. Both are synchronous, so the two never differ between events; should they all the same, the document wins.
 */
import * as Automerge from "@automerge/automerge";
import { ChangeError, type Change, type DocHandle } from "@syncline/client";
import { Annotation, ChangeSet, Transaction, type Extension, type Text, type TransactionSpec } from "@codemirror/state";
import { EditorView, type ViewUpdate } from "@codemirror/view";
import { difference, readText, type Board } from "./model";

/** Marks what came from the document, so that it is not written back. */
const fromDocument = Annotation.define<true>();

/** Past this many patches at once the whole text is compared, which costs the same however many there are. */
const PATCHES_MAX = 200;

/**
 * A letter that comes or goes is an operation, and the server takes so many in one change, if nothing else is configured, four
 * times over: what is pasted or deleted beyond that is written in several.
 */
const LETTERS_MAX = 50_000;

/** More changes than these at once would hold up the page for seconds: so much is refused. */
const CHANGES_MAX = 10;

/** A bound editor. */
export interface Binding {
  /** Goes into the editor's extensions. */
  readonly extension: Extension;
  /** Begins: shows the text and follows it. The function that comes back ends that. */
  attach(view: EditorView): () => void;
}

/** Binds an editor to the text of a document. `refused` hears why something typed could not be written. */
export function bindText(handle: DocHandle<Board>, refused: (error: ChangeError) => void): Binding {
  let writing = false;

  const write = (update: ViewUpdate): void => {
    const typed = update.transactions.filter((transaction) => transaction.docChanged && !transaction.annotation(fromDocument));
    if (typed.length === 0) return;
    writing = true;
    try {
      const changes = inChanges(typed);
      if (changes.length > CHANGES_MAX) throw new ChangeError("too_large", `${changes.length} changes at once would hold up the page`);
      for (const splices of changes) {
        handle.change((board) => {
          if (typeof board.text !== "string") board.text = "";
          for (const { at, gone, text } of splices) Automerge.splice(board, ["text"], at, gone, text);
        });
      }
    } catch (error) {
      if (!(error instanceof ChangeError)) throw error;
      refused(error);
      // The editor takes no transaction while it tells of one.
      queueMicrotask(() => show(update.view, handle.doc()));
    } finally {
      writing = false;
    }
  };

  return {
    extension: EditorView.updateListener.of(write),
    attach(view) {
      if (handle.isReady) show(view, handle.doc());
      return handle.on("change", (change) => {
        // What is being written is in the editor already; what others wrote meanwhile comes right behind it.
        if (!writing || change.origin !== "local") follow(view, change);
      });
    },
  };
}

/** One piece of the text that gives way to another. */
export interface Splice {
  readonly at: number;
  readonly gone: number;
  readonly text: string;
}

/** What was typed, as splices one after another, gathered into as few changes as may be. */
export function inChanges(typed: readonly Transaction[]): Splice[][] {
  const gathered: Splice[][] = [];
  let letters = Infinity;
  for (const { changes, startState } of typed) {
    for (const splice of splicesOf(changes, startState.doc)) {
      const own = splice.gone + splice.text.length;
      if (letters + own > LETTERS_MAX) {
        gathered.push([]);
        letters = 0;
      }
      gathered.at(-1)?.push(splice);
      letters += own;
    }
  }
  return gathered;
}

/** Positions of a set are those of the text before it; each piece is written where the earlier ones have moved it. */
function splicesOf(changes: ChangeSet, before: Text): Splice[] {
  const splices: Splice[] = [];
  changes.iterChanges((fromA, toA, fromB, _toB, inserted) => {
    if (toA - fromA + inserted.length <= LETTERS_MAX) {
      splices.push({ at: fromB, gone: toA - fromA, text: inserted.toString() });
      return;
    }
    for (const { length } of parts(before.sliceString(fromA, toA, "\n"))) splices.push({ at: fromB, gone: length, text: "" });
    let at = fromB;
    for (const text of parts(inserted.toString())) {
      splices.push({ at, gone: 0, text });
      at += text.length;
    }
  });
  return splices;
}

/** A long text in pieces; a character of two units is not cut. */
function parts(text: string): string[] {
  const cut: string[] = [];
  for (let from = 0, to = 0; from < text.length; from = to) {
    to = Math.min(from + LETTERS_MAX, text.length);
    if (to < text.length && /[\uD800-\uDBFF]/.test(text.charAt(to - 1))) to -= 1;
    cut.push(text.slice(from, to));
  }
  return cut;
}

/**
 * The document may be further on than the change that is told of: more of them follow. Where there are no splices to follow, the
 * whole text is compared; behind splices its length tells whether they have led to the document's.
 */
function follow(view: EditorView, change: Change<Board>): void {
  const changes = change.origin === "replaced" ? undefined : fromPatches(change.patches, view.state.doc.length);
  if (changes === undefined) return show(view, change.doc);
  if (!changes.empty) view.dispatch({ changes, ...REMOTE });
  if (view.state.doc.length !== (readText(change.doc) ?? "").length) show(view, change.doc);
}

/** Makes the editor's text the document's, by the one piece that differs. */
function show(view: EditorView, board: Board): void {
  const { from, to, insert } = difference(view.state.doc.toString(), readText(board) ?? "");
  if (to > from || insert !== "") view.dispatch({ changes: { from, to, insert }, ...REMOTE });
}

/** Others' changes are not ours to undo, and do not move the page. */
const REMOTE: TransactionSpec = { annotations: [fromDocument.of(true), Transaction.addToHistory.of(false)] };

/** The patches of the text as one set; undefined if they say something that is no splice, or are too many. */
export function fromPatches(patches: readonly Automerge.Patch[], length: number): ChangeSet | undefined {
  const own = patches.filter(({ path }) => path[0] === "text");
  if (own.length > PATCHES_MAX) return undefined;
  let changes = ChangeSet.empty(length);
  for (const patch of own) {
    const [, at] = patch.path;
    if (typeof at !== "number" || patch.path.length !== 2) return undefined;
    const now = changes.newLength;
    if (patch.action === "splice" && at <= now) {
      changes = changes.compose(ChangeSet.of({ from: at, insert: patch.value }, now, "\n"));
    } else if (patch.action === "del" && at + (patch.length ?? 1) <= now) {
      changes = changes.compose(ChangeSet.of({ from: at, to: at + (patch.length ?? 1) }, now));
    } else if (patch.action !== "mark" && patch.action !== "unmark") {
      return undefined;
    }
  }
  return changes;
}
