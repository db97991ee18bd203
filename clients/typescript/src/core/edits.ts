/** A document's edits: made, stored, sent, acknowledged, refused; and those of other pages, as far as they concern this one. */
import * as A from "@automerge/automerge";
import { ChangeError } from "../status.js";
import type { StorageWrite } from "../storage/storage.js";
import { EDIT_CHANGES_MAX, type Cursor, type Hash } from "../wire/messages.js";
import type { Document, Gone, SiblingContent } from "./document.js";
import { draftsPrefix, draftWrite, editKey, editWrite, queuesPrefix, type KeptDraft, type KeptEdit, type Left } from "./kept.js";
import { oldestOf, type Content, type Pending } from "./pending.js";
import { rename } from "./remake.js";
import { byValue } from "./rejoin.js";
import { contentOf, contentsSince, Fault, patchesBetween, type Replica } from "./replica.js";
import type { Site } from "./site.js";

/** The bytes around one change in an `edit`, at most. */
const CHANGE_OVERHEAD_BYTES = 5;
/** Temporary rejects in a row after which the room is joined anew. */
const HOLDS_MAX = 4;

/** Runs a local change, all of it or nothing. Throws a `ChangeError`, or what the function throws. */
export function change(document: Document, site: Site, make: (doc: A.Doc<unknown>) => A.Doc<unknown>): Hash[] {
  const { replica } = document;
  mayChange(document, site);
  const heads = replica.heads;
  const { step, made } = run(document, site, make);
  const ops = made.reduce((most, content) => Math.max(most, content.ops), 0);
  const bytes = made.reduce((most, content) => Math.max(most, content.bytes.length), 0);
  if (ops > site.limits.ops_per_change_max || bytes + CHANGE_OVERHEAD_BYTES > site.editBytesMax) {
    const limits = `${site.limits.ops_per_change_max} operations and ${site.editBytesMax} bytes`;
    replica.doc = A.clone(A.view(step.after, heads), { actor: freshActor(document, site) });
    throw new ChangeError("too_large", `a change may have ${limits}, this one has ${ops} and ${bytes}; make several`);
  }
  keep(document, site, made);
  return made.map(({ hash }) => hash);
}

/** What the function throws passes; after a panic of Automerge nothing of the change is left, and the document comes anew. */
function run(document: Document, site: Site, make: (doc: A.Doc<unknown>) => A.Doc<unknown>): ReturnType<Replica["change"]> {
  const { replica } = document;
  const heads = replica.heads;
  try {
    return replica.change(make);
  } catch (error) {
    if (!(error instanceof Fault || error instanceof WebAssembly.RuntimeError)) throw error;
    replica.withdraw(heads, freshActor(document, site));
    document.faulted(site, new Fault("Automerge panicked in a change", { cause: error }));
    throw new ChangeError("not_ready", "Automerge panicked in this change; nothing of it is left, and the document is fetched anew");
  }
}

function mayChange(document: Document, site: Site): void {
  const { pending, broken } = document.replica;
  if (!document.ready) throw new ChangeError("not_ready", "the document has not come yet; await whenReady()");
  if (broken) throw new ChangeError("not_ready", "the document is fetched anew; await whenReady()");
  if (document.access === "read") throw new ChangeError("read_only", "this client may only read the document");
  if (pending.mine >= site.own.pendingChangesMax || pending.mineBytes >= site.own.pendingBytesMax) {
    throw new ChangeError("queue_full", `${pending.mine} changes wait for the server; wait until some are acknowledged`);
  }
  if (document.drafts.size >= site.own.draftsMax) {
    throw new ChangeError("drafts_full", `${document.drafts.size} drafts are kept; drop some first`);
  }
}

/** Puts own changes, which the document holds, into the queue; they are stored at the next event, and sent with their group. */
export function keep(document: Document, site: Site, made: readonly Content[], remade = false, serial?: number): Pending[] {
  const kept = made.map((content): Pending => {
    const number = site.nextNumber();
    const key = editKey(document.id, site.page, number);
    const common = { origin: "own", key, page: "", user: site.user, remade, stored: "not yet", edit: undefined, sent: false } as const;
    return { ...content, ...common, serial: serial ?? number };
  });
  for (const pending of kept) document.replica.pending.add(pending);
  document.unsaved.push(...kept);
  if (kept.length > 0) {
    document.storeAt ??= site.now;
    document.groupAt ??= site.now + site.groupMs;
  }
  return kept;
}

const nothingGone: Gone = { hashes: [], remade: false };

/** Stores what is not stored; `stored` lets it be sent. */
export function storeUnsaved(document: Document, site: Site, more: readonly StorageWrite[] = [], left = nothingGone): void {
  const changes = document.unsaved.filter((pending) => document.replica.pending.get(pending.hash) === pending);
  document.unsaved = [];
  document.storeAt = undefined;
  const writes = [...more, ...changes.map(writeOf)];
  if (writes.length > 0) document.store(site, { of: "edits", changes, gone: left }, writes);
}

export function writeOf(pending: Pending): StorageWrite {
  return editWrite({ key: pending.key, user: pending.user, remade: pending.remade, change: pending.bytes });
}

/**
 * A batch is in the storage, or, with `failed`, will be later: then what is in it goes to the server all the same. Other pages are
 * told of what is stored only: what they put on it would stand on nothing if both pages were gone.
 */
export function stored(document: Document, site: Site, number: number, failed: boolean): void {
  const given = document.tickets.get(number);
  if (given === undefined) return;
  const { ticket, writes } = given;
  if (!failed) {
    document.tickets.delete(number);
    written(document, writes);
    tellDropped(document, site, writes);
  }
  if (ticket.of === "replica" && !failed) {
    const cursor = document.keeper.stored(site.now);
    if (cursor === undefined) return;
    const message = { type: "kept", page: site.page, cursor } as const;
    site.out.push({ type: "post", document: document.id, message });
  }
  if (ticket.of !== "edits") return;
  // Not earlier: a page that opens meanwhile may still read what was there before.
  if (!failed) tellGone(document, site, ticket.gone);
  const open = ticket.changes.filter((pending) => document.replica.pending.get(pending.hash) === pending);
  // What takes the place of changes that are still in the storage waits: this page may go, and the next one would find these.
  if (failed && writes.some((write) => "remove" in write && document.queued.has(write.remove))) return;
  for (const pending of open) document.replica.pending.store(pending, failed ? "failed" : "yes");
  if (failed || open.length === 0) return;
  const changes = open.map(({ bytes }) => bytes);
  site.out.push({ type: "post", document: document.id, message: { type: "edits", page: site.page, changes } });
}

function written({ id, queued }: Document, writes: readonly StorageWrite[]): void {
  const queues = queuesPrefix(id);
  for (const write of writes) {
    if ("remove" in write) queued.delete(write.remove);
    else if (write.put.startsWith(queues)) queued.add(write.put);
  }
}

/** Not earlier than it is stored: a page that reads the draft afterwards would not have heard. */
function tellDropped(document: Document, site: Site, writes: readonly StorageWrite[]): void {
  const prefix = draftsPrefix(document.id);
  for (const write of writes) {
    if (!("remove" in write) || !write.remove.startsWith(prefix)) continue;
    const message = { type: "dropped", page: site.page, draft: write.remove.slice(prefix.length) } as const;
    site.out.push({ type: "post", document: document.id, message });
  }
}

/** Gives how long the answer took; undefined if there was no such edit. */
export function acked(document: Document, site: Site, id: number, cursor: Cursor): number | undefined {
  const edit = document.inFlight.get(id);
  if (edit === undefined) return undefined;
  document.inFlight.delete(id);
  document.holds = 0;
  for (const pending of edit.changes) {
    if (document.replica.pending.get(pending.hash) === pending) document.acknowledge(site, pending, cursor);
  }
  return site.now - edit.sentAt;
}

export function rejected(document: Document, site: Site, id: number, code: string, text: string): void {
  const edit = document.inFlight.get(id);
  if (edit === undefined) return;
  document.inFlight.delete(id);
  const { pending } = document.replica;
  const refused = new Set(edit.changes.filter((change) => pending.get(change.hash) === change).map(({ hash }) => hash));
  // Made anew or put aside while this answer was on its way.
  if (refused.size === 0) return;
  switch (code) {
    case "unavailable":
    case "missing_deps":
      for (const hash of refused) pending.send(pending.get(hash)!, undefined);
      document.holds += 1;
      document.holdUntil = site.now + site.backoffMs(document.holds);
      if (document.holds % HOLDS_MAX === 0) document.leaveAndWait(site);
      return;
    case "not_open":
      return document.leaveAndWait(site);
    case "quarantined": {
      for (const hash of refused) document.quarantined.add(hash);
      const own = new Set([...refused].filter((hash) => pending.get(hash)?.origin === "own"));
      document.rejoin = "reset";
      attempt(document, site, () => putAside(document, site, code, text, (change) => own.has(change.hash)));
      // Those that were acknowledged once are in no queue any more, and may be shown by pages that had heard of them then.
      tellGone(document, site, { hashes: [...refused].filter((hash) => !own.has(hash)), remade: false });
      return document.leave(site);
    }
    case "limit":
      if (refused.size > 1) return sendAlone(document, site, refused);
      return attempt(document, site, () => putAside(document, site, code, text, (change) => refused.has(change.hash)));
    default:
      // A renewed token may grant less than the room was opened with ([H13]).
      if (code === "forbidden") document.access = "read";
      attempt(document, site, () => putAside(document, site, code, text, (change) => refused.has(change.hash)));
  }
}

/** Together they may be above a limit that none of them is ([E21]). In this room all of their actor is refused now ([E15]). */
function sendAlone(document: Document, site: Site, refused: ReadonlySet<Hash>): void {
  for (const hash of refused) document.replica.pending.get(hash)!.alone = true;
  document.leaveAndWait(site);
}

/** Another page has taken changes back, or made them anew: what this page has put on them is made anew, too. */
export function gone(document: Document, site: Site, hashes: ReadonlySet<Hash>, remade: boolean): void {
  const { pending: all } = document.replica;
  document.early = document.early.filter(({ hash }) => !hashes.has(hash));
  if (!remade) {
    const sent = [...all.values()].filter((pending) => pending.origin === "sibling" && pending.sent && hashes.has(pending.hash));
    for (const pending of sent) all.abandon(pending);
  }
  const concerned = (pending: Pending) => pending.origin === "sibling" && hashes.has(pending.hash);
  const text = "it stood on a change of another page, which was refused";
  attempt(document, site, () => putAside(document, site, "after_reject", text, concerned, "replay"));
}

function attempt(document: Document, site: Site, work: () => void): void {
  try {
    work();
  } catch (error) {
    document.faulted(site, error);
  }
}

/** What becomes of changes that are taken out: a draft; the same under another actor; the same by value; they stay stored. */
type Remedy = "draft" | "rename" | "replay" | "hold";

/** Takes refused changes and all that stand on them out of the document. Those that cannot be made anew become a draft. */
export function putAside(
  document: Document,
  site: Site,
  code: string,
  text: string,
  refused: (pending: Pending) => boolean,
  remedy: Remedy = code === "actor_conflict" ? "rename" : "draft",
): void {
  const { replica } = document;
  const heads = replica.confirmedHeads();
  const cut = replica.pending.cut(refused);
  if (cut.length === 0) return;
  const own = cut.filter(({ origin }) => origin === "own" || origin === "brought");
  const former = replica.doc;
  let fault: unknown;
  let anew = false;
  try {
    replica.rebuild(heads, freshActor(document, site));
    anew = own.length > 0 && makeAnew(document, site, remedy, own, former);
  } catch (error) {
    fault = error;
  }
  const writes: StorageWrite[] = own.filter(({ key }) => key !== "").map(({ key }) => ({ remove: key }));
  if (own.length > 0 && !anew && remedy !== "hold") writes.push(draft(document, site, code, text, own));
  const left = goneOf(own, anew);
  if (remedy === "hold") tellGone(document, site, left);
  else storeUnsaved(document, site, writes, left);
  if (fault !== undefined) throw fault;
  // A document whose beginning was refused is not what the app counts on.
  if (document.initial !== undefined && replica.heads.length === 0) document.ready = false;
  document.changed(site, "replaced", { before: former, after: replica.doc, patches: patchesBetween(former, replica.doc) });
}

/** Whether nothing of the changes was left out. */
function makeAnew(document: Document, site: Site, remedy: Remedy, own: Pending[], former: A.Doc<unknown>): boolean {
  const { replica } = document;
  const serial = oldestOf(own);
  const before = replica.heads;
  switch (remedy) {
    case "draft":
    case "hold":
      return false;
    case "rename": {
      const chunks = rename(own, () => freshActor(document, site));
      if (chunks === undefined) return false;
      replica.merge(chunks);
      keep(document, site, contentsSince(replica.doc, before), true, serial);
      return true;
    }
    case "replay":
      return byValue(document, site, former, own, serial);
  }
}

export function freshActor(document: Document, site: Site): string {
  const actor = site.random.id();
  document.replica.actors.add(actor);
  return actor;
}

/** Keeps changes apart for the app; the write goes into the batch that takes them out of the queue. */
export function draft(document: Document, site: Site, code: string, reason: string, changes: readonly Pending[]): StorageWrite {
  const at = Math.max(0, Math.round(site.epoch + site.now));
  const kept: KeptDraft = { id: site.random.id(), code, reason, at, changes: changes.map(({ bytes }) => bytes) };
  document.drafts.set(kept.id, kept);
  tellDraft(document, site, kept, oldestOf(changes));
  return draftWrite(document.id, kept);
}

/** `serial` is the smallest in it: whoever waits for one from there on is told, too. In one that another page left there is none. */
function tellDraft(document: Document, site: Site, kept: KeptDraft, serial: number): void {
  const shown = { ...kept, changes: kept.changes.length };
  site.out.push({ type: "notify", notice: { type: "draft", document: document.id, draft: shown, serial } });
}

function goneOf(changes: readonly Pending[], remade: boolean): Gone {
  return { hashes: changes.filter(({ origin }) => origin === "own").map(({ hash }) => hash), remade };
}

function tellGone(document: Document, site: Site, left: Gone): void {
  if (left.hashes.length === 0) return;
  site.out.push({ type: "post", document: document.id, message: { type: "gone", page: site.page, ...left } });
}

/** Brings other pages' changes into the document, as far as what they stand on is there. */
export function placeSiblings(document: Document, site: Site, chunks: readonly Uint8Array[], page = ""): void {
  const { replica } = document;
  if (replica.broken || chunks.length + document.early.length + document.unplaced.length === 0) return;
  try {
    placeOwn(document, site);
    const contents = chunks.map((chunk) => ({ ...contentOf(chunk), page }));
    const news = contents.filter(({ hash }) => !replica.pending.has(hash) && !replica.holds(hash));
    const { placed, left } = split(document, [...document.early, ...news]);
    document.early = left.slice(-site.own.earlyChangesMax);
    if (placed.length === 0) return;
    const step = replica.merge(placed.map(({ bytes }) => bytes));
    for (const content of placed) addSibling(document, site, content);
    document.changed(site, "remote", step);
  } catch (error) {
    document.faulted(site, error);
  }
}

/** Brings stored changes of this page into the document, as far as what they stand on is there by now; `cursor` is what it covers. */
export function placeOwn(document: Document, site: Site, cursor: Cursor = document.replica.cursor ?? [0, 0]): void {
  if (document.unplaced.length === 0) return;
  const { replica, keeper } = document;
  const waiting = document.unplaced.filter((change) => {
    const known = replica.pending.get(change.hash);
    if (known?.origin === "sibling" || known?.origin === "abandoned") replica.pending.adopt(known, change.key, change.user, change.remade);
    else if (known === undefined && replica.holds(change.hash)) keeper.confirmed(site.now, change.key, cursor);
    else return known === undefined;
    return false;
  });
  const { placed, left } = split(document, waiting);
  document.unplaced = left;
  if (placed.length === 0) return;
  const step = replica.merge(placed.map(({ bytes }) => bytes));
  for (const pending of placed) replica.pending.add(pending);
  document.changed(site, "remote", step);
}

export function addSibling(document: Document, site: Site, content: SiblingContent): void {
  const common = { origin: "sibling", key: "", user: null, remade: false, stored: "yes", edit: undefined, sent: false } as const;
  document.replica.pending.add({ ...content, ...common, serial: site.nextNumber() });
}

/** Which changes the document can take, dependencies first, and which stand on what it lacks. */
export function split<T extends Content>(document: Document, changes: readonly T[]): { readonly placed: T[]; readonly left: T[] } {
  const [placed, there] = [[] as T[], new Set<Hash>()];
  let left = [...changes];
  for (let before = -1; before !== left.length; ) {
    before = left.length;
    left = left.filter((change) => {
      if (there.has(change.hash) || document.replica.holds(change.hash)) return false;
      if (!change.deps.every((dep) => there.has(dep) || document.replica.holds(dep))) return true;
      there.add(change.hash);
      placed.push(change);
      return false;
    });
  }
  return { placed, left };
}

/** A page is gone, and what it had left in its queue is this page's now. What it never stored is here alone. */
export function adopt(document: Document, site: Site, page: string, { edits, drafts }: Left): void {
  const { replica } = document;
  for (const found of drafts) if (document.foundDraft(found)) tellDraft(document, site, found, Infinity);
  const left = [...replica.pending.values()].filter((pending) => pending.origin === "sibling" && pending.page === page);
  for (const pending of left) replica.pending.abandon(pending);
  const news: Pending[] = [];
  for (const edit of edits) {
    document.queued.add(edit.key);
    const content = readable(document, site, edit);
    if (content === undefined) continue;
    replica.actors.add(content.actor);
    const pending = replica.pending.get(content.hash);
    if (pending?.origin === "sibling" || pending?.origin === "abandoned") replica.pending.adopt(pending, edit.key, edit.user, edit.remade);
    else if (pending === undefined && replica.holds(content.hash)) document.keeper.confirmed(site.now, edit.key, replica.cursor ?? [0, 0]);
    else if (pending === undefined) news.push(ownOf(content, edit, site));
  }
  const { placed, left: unplaced } = split(document, news);
  document.unplaced.push(...unplaced);
  document.early = document.early.filter(({ hash }) => !news.some((pending) => pending.hash === hash));
  attempt(document, site, () => {
    const step = replica.merge(placed.map(({ bytes }) => bytes));
    for (const pending of placed) replica.pending.add(pending);
    document.changed(site, "remote", step);
  });
  // What stands on nothing that is here is looked at when the room is joined anew.
  if (unplaced.length > 0 && document.phase.at === "live") document.leaveAndWait(site);
}

export function ownOf(content: Content, edit: KeptEdit, site: Site): Pending {
  const { key, user, remade } = edit;
  return { ...content, origin: "own", key, page: "", user, remade, stored: "yes", edit: undefined, sent: false, serial: site.nextNumber() };
}

export function readable(document: Document, site: Site, edit: KeptEdit): Content | undefined {
  try {
    return contentOf(edit.change);
  } catch (error) {
    site.error("storage", document.id, `a stored change cannot be read and is left at ${edit.key}`, error);
    return undefined;
  }
}

/** Sends what may be sent, packed into as few edits as the limits allow. */
export function sendEdits(document: Document, site: Site): void {
  const { pending } = document.replica;
  if (pending.unsent === 0) return;
  const tooLarge = (change: Pending) => change.bytes.length + CHANGE_OVERHEAD_BYTES > site.editBytesMax;
  if ([...pending.values()].some((change) => change.origin !== "sibling" && tooLarge(change))) {
    const text = `a change is larger than the ${site.editBytesMax} bytes that the server takes`;
    attempt(document, site, () => putAside(document, site, "limit", text, tooLarge));
  }
  const carried = carriedSiblings(document);
  while (document.phase.at === "live" && document.inFlight.size < site.own.editsInFlightMax) {
    const changes = pack(document, site, carried);
    if (changes.length === 0) return;
    const id = site.nextNumber();
    for (const change of changes) pending.send(change, id);
    document.inFlight.set(id, { changes, sentAt: site.now });
    site.send({ type: "edit", room: document.phase.room, id, changes: changes.map(({ bytes }) => bytes) });
  }
}

/** Other pages' changes that own ones stand on: those pages may not be connected, so they go along. */
function carriedSiblings(document: Document): ReadonlySet<Pending> {
  const { pending } = document.replica;
  const carried = new Set<Pending>();
  if (pending.siblings === 0) return carried;
  const open = [...pending.values()].filter(({ origin, edit }) => origin !== "sibling" && edit === undefined);
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    for (const dep of next.deps) {
      const below = pending.get(dep);
      if (below === undefined || below.origin !== "sibling" || carried.has(below)) continue;
      carried.add(below);
      open.push(below);
    }
  }
  return carried;
}

/**
 * The next changes of one actor that go into one edit. None beyond one that is under way in another edit: that one may wait at
 * the server for a change in this edit, which would wait for that one.
 */
function pack(document: Document, site: Site, carried: ReadonlySet<Pending>): Pending[] {
  const packed: Pending[] = [];
  let [bytes, ops] = [0, 0];
  for (const change of document.replica.pending.values()) {
    if (change.origin === "sibling" && !carried.has(change)) continue;
    if (change.edit !== undefined && packed.length === 0) continue;
    bytes += change.bytes.length + CHANGE_OVERHEAD_BYTES;
    ops += change.ops;
    const fits = bytes <= site.editBytesMax && (packed.length === 0 || ops <= site.limits.ops_per_change_max);
    const sameActor = packed.length === 0 || packed[0]!.actor === change.actor;
    if (change.stored === "not yet" || change.edit !== undefined || !fits || !sameActor || packed.length === EDIT_CHANGES_MAX) break;
    if (change.alone === true && packed.length > 0) break;
    packed.push(change);
    if (change.alone === true) break;
  }
  return packed;
}
