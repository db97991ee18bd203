/** Refused changes that an app wants to see, or to make anew. */
import * as A from "@automerge/automerge";
import type { Document } from "./document.js";
import { change, freshActor, storeUnsaved } from "./edits.js";
import { draftKey } from "./kept.js";
import { rename } from "./remake.js";
import { contentOf, Fault, guarded } from "./replica.js";
import type { Site } from "./site.js";

/** The document with the draft on top; undefined if what the draft stands on is gone. */
export function previewDraft(document: Document, id: string): A.Doc<unknown> | undefined {
  const draft = document.drafts.get(id);
  if (draft === undefined) return undefined;
  return fitting(() => {
    const [preview] = A.applyChanges(A.clone(document.replica.doc), draft.changes as Uint8Array[]);
    return A.getMissingDeps(preview, []).length === 0 ? preview : undefined;
  });
}

/** Makes a draft's changes anew, under another actor, or by value where that is not possible. */
export function makeDraftAnew(document: Document, site: Site, id: string): boolean {
  const draft = document.drafts.get(id);
  const preview = previewDraft(document, id);
  if (draft === undefined || preview === undefined) return false;
  // The draft makes room for what takes its place.
  document.drafts.delete(id);
  const before = document.replica.doc;
  const heads = document.replica.heads;
  const renamed = fitting(() => rename(draft.changes.map(contentOf), () => freshActor(document, site)));
  const patches = fitting(() => A.diff(preview, heads, A.getHeads(preview)));
  const make = (doc: A.Doc<unknown>) =>
    renamed === undefined
      ? A.change(doc, { time: site.seconds }, (writable) => A.applyPatches(writable, patches ?? []))
      : A.applyChanges(doc, renamed)[0];
  try {
    change(document, site, make);
  } catch (error) {
    document.drafts.set(id, draft);
    throw error;
  }
  // In one batch with what takes its place: neither must be there alone.
  document.dropDraft(id);
  storeUnsaved(document, site, [{ remove: draftKey(document.id, id) }]);
  document.changed(site, "local", { before, after: document.replica.doc, patches: patches ?? [] });
  return true;
}

function fitting<T>(work: () => T): T | undefined {
  try {
    return guarded(work);
  } catch (error) {
    if (error instanceof Fault) return undefined;
    throw error;
  }
}
