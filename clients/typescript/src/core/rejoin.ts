/** What becomes of the present document when the server's has come: what is kept, what is sent, what is made anew. */
import * as A from "@automerge/automerge";
import type { StorageWrite } from "../storage/storage.js";
import type { Cursor, Hash, Opened } from "../wire/messages.js";
import type { Document } from "./document.js";
import { draft, freshActor, keep, placeOwn, placeSiblings, split, storeUnsaved } from "./edits.js";
import { oldestOf, type Content, type Pending } from "./pending.js";
import { rename, replay } from "./remake.js";
import { contentOf, contentsSince, Fault, patchesBetween } from "./replica.js";
import type { Site } from "./site.js";

/**
 * What the next whole document means for the present one. `trusting`: nothing is wrong, the document is opened with its cursor
 * and heads. `whole`: the present one does not fit; what the server's lacks is sent ([O14], [O17]). `reset`: of what the
 * server's lacks only the own changes are kept, acknowledged ones too, and made anew under a new actor ([R2]).
 */
export type Rejoin = "trusting" | "whole" | "reset";

/** Everything that the parts after an `opened` bring has come. Throws a `Fault` if it does not make a whole document. */
export function join(document: Document, site: Site, opened: Opened, chunks: Uint8Array, end: Cursor): void {
  const { replica } = document;
  const former = replica.doc;
  if (document.rejoin === "trusting" && !replica.broken) {
    merge(document, site, opened, chunks, end);
  } else {
    replace(document, site, chunks);
    document.keeper.replaced();
    document.keeper.took(site.now, [], end);
    const after = replica.doc;
    document.changed(site, "replaced", { before: former, after, patches: patchesBetween(former, after) });
  }
  check(document, opened, end);
  begin(document, site, opened);
}

/** Merges the server's changes into the replica ([O6]), and finds out what the server has and what it lacks. */
function merge(document: Document, site: Site, opened: Opened, chunks: Uint8Array, end: Cursor): void {
  const { replica } = document;
  const otherLife = replica.cursor !== undefined && replica.cursor[0] !== end[0];
  const step = replica.load(chunks);
  if (isNamed(opened)) {
    if (!opened.heads.every((hash) => replica.holds(hash))) throw new Fault("the document lacks heads that the server has");
    const lacked = replica.beyond(opened.heads);
    const lackedSet = new Set(lacked);
    for (const pending of [...replica.pending.values()]) {
      if (!lackedSet.has(pending.hash)) document.confirm(site, pending, opened.cursor);
    }
    if (otherLife) bring(document, site, opened.heads);
  }
  // The whole document came: it is stored as such, not behind what is stored.
  if (otherLife) document.keeper.replaced();
  document.keeper.took(site.now, [chunks], end);
  document.changed(site, "remote", step);
  place(document, site, end);
}

/** The log began anew: what it lacks is sent, others' changes too ([O17]). They stand below what is pending. */
function bring(document: Document, site: Site, heads: readonly Hash[]): void {
  const { replica } = document;
  const lost = contentsSince(replica.doc, [...heads]).filter(({ hash }) => !replica.pending.has(hash));
  if (lost.length === 0) return;
  const above = replica.pending.clear();
  for (const content of lost) replica.pending.add(broughtOf(content, site));
  for (const pending of above) replica.pending.add(pending);
}

function broughtOf(content: Content, site: Site): Pending {
  const common = { origin: "brought", key: "", page: "", user: null, remade: false, stored: "yes", edit: undefined, sent: false } as const;
  return { ...content, ...common, serial: site.nextNumber() };
}

/** What could not be placed when it was read from the storage stands on what has come now, or, at a join, is given up. */
function place(document: Document, site: Site, cursor: Cursor): void {
  if (document.unplaced.length === 0) return;
  placeOwn(document, site, cursor);
  // It may stand on other pages' changes, and those on what has come.
  placeSiblings(document, site, []);
  placeOwn(document, site, cursor);
  const lost = hopeless(document);
  if (lost.size === 0) return;
  giveUp(document, site, document.unplaced.filter(({ hash }) => lost.has(hash)));
  document.unplaced = document.unplaced.filter(({ hash }) => !lost.has(hash));
}

/** Those that stand on what nobody has who is known: neither the server nor another page, which may bring it later. */
function hopeless(document: Document): Set<Hash> {
  const { unplaced, early, replica } = document;
  const coming = new Set([...unplaced, ...early].map(({ hash }) => hash));
  const lost = new Set<Hash>();
  for (let before = -1; before !== lost.size; ) {
    before = lost.size;
    for (const { hash, deps } of unplaced) {
      if (deps.some((dep) => lost.has(dep) || !(coming.has(dep) || replica.holds(dep)))) lost.add(hash);
    }
  }
  return lost;
}

function giveUp(document: Document, site: Site, changes: readonly Pending[]): void {
  const writes: StorageWrite[] = changes.map(({ key }) => ({ remove: key }));
  writes.push(draft(document, site, "after_reject", "this does not fit the document that the server has now", changes));
  storeUnsaved(document, site, writes);
}

/** Puts the server's document in the place of the present one. */
function replace(document: Document, site: Site, chunks: Uint8Array): void {
  const { replica } = document;
  const pending = replica.pending.clear();
  let former: A.Doc<unknown>;
  try {
    former = replica.replace(chunks, freshActor(document, site));
  } catch (error) {
    for (const change of pending) replica.pending.add(change);
    throw error;
  }
  const lost = lostOf(document, former, pending);
  if (document.rejoin !== "reset" && keepAll(document, site, lost, pending)) return;
  makeAnew(document, site, { former, pending, lost });
}

/** All that the present document lacks of the former one, dependencies first, the unconfirmed changes among them. */
function lostOf(document: Document, former: A.Doc<unknown>, pending: readonly Pending[]): Content[] {
  const { replica } = document;
  const common = replica.heads.filter((hash) => quietly(() => A.hasHeads(former, [hash])) ?? false);
  const beyond = quietly(() => contentsSince(former, common)) ?? [];
  const known = new Set(beyond.map(({ hash }) => hash));
  const rest = [...pending, ...document.unplaced].filter(({ hash }) => !known.has(hash));
  return [...beyond, ...rest].filter(({ hash }) => !replica.holds(hash));
}

/** Merges what the server lacks and sends it; whether that was possible. */
function keepAll(document: Document, site: Site, lost: readonly Content[], pending: readonly Pending[]): boolean {
  const { replica } = document;
  const { left } = split(document, lost);
  if (left.length > 0 || (quietly(() => replica.merge(lost.map(({ bytes }) => bytes))) === undefined && lost.length > 0)) return false;
  const known = new Map([...pending, ...document.unplaced].map((change) => [change.hash, change]));
  for (const content of lost) {
    const before = known.get(content.hash);
    if (before !== undefined) before.edit = undefined;
    replica.pending.add(before ?? broughtOf(content, site));
  }
  const lostHashes = new Set(lost.map(({ hash }) => hash));
  confirmHeld(document, site, [...pending, ...document.unplaced].filter(({ hash }) => !lostHashes.has(hash)));
  document.unplaced = [];
  return true;
}

interface Losses {
  readonly former: A.Doc<unknown>;
  readonly pending: readonly Pending[];
  readonly lost: readonly Content[];
}

/**
 * Saves the own changes that the server's document lacks. What was never acknowledged, and stands on what is there, goes on as it
 * is: another page may have brought it along, and then it must not be there twice. What was thrown out is made anew under new
 * actors, exactly as far as all that it stands on is there, then by value.
 */
function makeAnew(document: Document, site: Site, losses: Losses): void {
  const { replica } = document;
  const queued = [...losses.pending, ...document.unplaced].filter(({ origin }) => origin === "own");
  const byHash = new Map(queued.map((pending) => [pending.hash, pending]));
  document.unplaced = [];
  const isOwn = ({ hash, actor }: Content) =>
    (byHash.has(hash) || replica.actors.has(actor)) && hash !== document.initial?.hash && !document.quarantined.has(hash);
  const own = losses.lost.filter(isOwn);
  const needsInitial = document.initial !== undefined && (own.length > 0 || replica.heads.length === 0);
  if (needsInitial) restart(document, site);
  const goesOn = takeOn(document, own, byHash);
  const serial = queued.length === 0 ? undefined : oldestOf(queued);
  const { placed, left } = split(document, own.filter(({ hash }) => !goesOn.has(hash)));
  const renamed = placed.length === 0 ? [] : rename(placed, () => freshActor(document, site));
  const before = replica.heads;
  const exact = renamed !== undefined && quietly(() => replica.merge(renamed)) !== undefined;
  if (exact) keep(document, site, contentsSince(replica.doc, before), true, serial);
  const rest = exact ? left : [...placed, ...left];
  const whole = byValue(document, site, losses.former, rest, serial);
  const lostHashes = new Set(losses.lost.map(({ hash }) => hash));
  confirmHeld(document, site, queued.filter(({ hash }) => !lostHashes.has(hash)));
  const remade = queued.filter(({ hash }) => lostHashes.has(hash) && !goesOn.has(hash));
  const writes: StorageWrite[] = remade.map(({ key }) => ({ remove: key }));
  if (!whole) {
    const kept = rest.map((content) => byHash.get(content.hash) ?? broughtOf(content, site));
    writes.push(draft(document, site, "after_reject", "this does not fit the document that the server has now", kept));
  }
  // Acknowledged ones that were thrown out may still be in the queue, and other pages may have read them there.
  writes.push(...document.keeper.takeCovered().map((key) => ({ remove: key })));
  storeUnsaved(document, site, writes, { hashes: own.flatMap(({ hash }) => (goesOn.has(hash) ? [] : [hash])), remade: true });
}

/** Merges what can go on as it is; their hashes. */
function takeOn(document: Document, own: readonly Content[], queued: ReadonlyMap<Hash, Pending>): ReadonlySet<Hash> {
  const { replica } = document;
  const { placed } = split(document, own.flatMap(({ hash }) => queued.get(hash) ?? []));
  if (quietly(() => replica.merge(placed.map(({ bytes }) => bytes))) === undefined) return new Set();
  for (const pending of placed) {
    pending.edit = undefined;
    replica.pending.add(pending);
  }
  return new Set(placed.map(({ hash }) => hash));
}

/** Makes changes anew by value, one run after another. Whether nothing was left out. */
export function byValue(document: Document, site: Site, former: A.Doc<unknown>, changes: readonly Content[], serial: number | undefined): boolean {
  const { replica } = document;
  let whole = true;
  for (const run of runs(changes)) {
    const before = replica.heads;
    const replayed = quietly(() => replay(replica.doc, former, [...run[0]!.deps], [run.at(-1)!.hash], site.seconds));
    whole &&= replayed?.whole ?? false;
    if (replayed === undefined) continue;
    replica.doc = replayed.doc;
    keep(document, site, contentsSince(replayed.doc, before), true, serial);
  }
  return whole;
}

/** Changes of which each stands on the one before and on nothing else. */
function runs(changes: readonly Content[]): Content[][] {
  const found: Content[][] = [];
  for (const change of changes) {
    const run = found.at(-1);
    if (run !== undefined && change.deps.length === 1 && change.deps[0] === run.at(-1)!.hash) run.push(change);
    else found.push([change]);
  }
  return found;
}

/** What is in the server's document already needs no queue. */
function confirmHeld(document: Document, site: Site, changes: readonly Pending[]): void {
  for (const { key } of changes) if (key !== "") document.keeper.confirmed(site.now, key, document.replica.cursor ?? [0, 0]);
}

/** The replica holds what the server named ([O14]). */
function check(document: Document, opened: Opened, end: Cursor): void {
  const { replica } = document;
  if (!opened.heads.every((hash) => replica.holds(hash))) throw new Fault("the document lacks heads that the server has");
  const same = opened.cursor[0] === end[0] && opened.cursor[1] === end[1];
  if (same && isNamed(opened) && !replica.standsAt(opened.heads)) throw new Fault("the document has changes that the server lacks");
}

/** A document with very many heads names none. */
function isNamed(opened: Opened): boolean {
  return opened.heads.length > 0 || opened.cursor[1] === 0;
}

/** A document that nobody has written begins as the app said. */
function begin(document: Document, site: Site, opened: Opened): void {
  if (opened.cursor[1] > 0 || opened.access === "read" || document.replica.heads.length > 0) return;
  restart(document, site);
}

/** The first change, the same bytes from everybody. */
export function restart(document: Document, site: Site): void {
  const { initial, replica } = document;
  if (initial === undefined || replica.holds(initial.hash) || document.quarantined.has(initial.hash)) return;
  const step = replica.merge([initial.bytes]);
  keep(document, site, [contentOf(initial.bytes)]);
  document.changed(site, "remote", step);
}

function quietly<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
