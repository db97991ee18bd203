/** A document as it was stored: its replica, its queue, what other pages have in theirs, its drafts. */
import { pageOf, type Kept } from "./kept.js";
import { addSibling, ownOf, readable, split } from "./edits.js";
import type { Document } from "./document.js";
import { Fault, Replica } from "./replica.js";
import type { Site } from "./site.js";

/** Fills a new document. What cannot be read is reported and left where it is. */
export function restore(document: Document, site: Site, kept: Kept): void {
  const { replica } = document;
  for (const key of kept.damaged) site.error("storage", document.id, `what is stored at ${key} cannot be read; it is left there`);
  for (const stored of kept.drafts) document.drafts.set(stored.id, stored);
  try {
    if (kept.replica !== undefined) replica.load(kept.replica);
    replica.cursor = kept.stored?.cursor;
    document.keeper.loaded(kept.stored);
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    site.error("storage", document.id, "the stored replica cannot be read; the server is asked for it", error);
    replica.doc = new Replica(site.random.id()).doc;
    document.keeper.loaded(null);
  }
  queue(document, site, kept);
  document.ready = replica.heads.length > 0 || (replica.cursor !== undefined && document.initial === undefined);
}

function queue(document: Document, site: Site, kept: Kept): void {
  const { replica } = document;
  const own = kept.own.flatMap((edit) => {
    document.queued.add(edit.key);
    const content = readable(document, site, edit);
    return content === undefined ? [] : [ownOf(content, edit, site)];
  });
  const others = kept.others.flatMap((edit) => {
    const content = readable(document, site, edit);
    return content === undefined ? [] : [{ ...content, page: pageOf(edit.key) }];
  });
  for (const pending of own) {
    if (pending.hash !== document.initial?.hash) replica.actors.add(pending.actor);
    if (replica.holds(pending.hash)) document.keeper.confirmed(site.now, pending.key, replica.cursor ?? [0, 0]);
  }
  const mine = new Map(own.map((pending) => [pending.hash, pending]));
  const { placed, left } = split(document, [...own, ...others.filter(({ hash }) => !mine.has(hash))]);
  try {
    replica.merge(placed.map(({ bytes }) => bytes));
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    site.error("storage", document.id, "the stored changes do not fit the stored replica; the server is asked for it", error);
    document.unplaced = own;
    document.rejoin = "whole";
    return;
  }
  for (const content of placed) {
    const pending = mine.get(content.hash);
    if (pending !== undefined) replica.pending.add(pending);
    else addSibling(document, site, content);
  }
  document.unplaced = left.flatMap(({ hash }) => mine.get(hash) ?? []);
  document.early = left.filter(({ hash }) => !mine.has(hash));
}
