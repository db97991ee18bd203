/**
 * One open document on a connection that comes and goes: joining its room, catching up, diffs in, and what other pages of the
 * origin say. Edits are in `edits`, what becomes of a document that is replaced in `rejoin`. Which connection there is, `core`
 * knows.
 */
import * as A from "@automerge/automerge";
import type { Access, DocumentStatus, Safety } from "../status.js";
import type { StorageWrite } from "../storage/storage.js";
import { HEADS_MAX, type Cursor, type Diff, type Hash, type Opened, type Part } from "../wire/messages.js";
import type { DocumentState, SiblingMessage, Stored } from "./boundary.js";
import { gone, placeSiblings, sendEdits, storeUnsaved } from "./edits.js";
import { Keeper, sameCursor } from "./keeper.js";
import type { KeptDraft } from "./kept.js";
import { Loading } from "./loading.js";
import { sameBytes, sumOf, type Content, type Pending } from "./pending.js";
import { Presence } from "./presence.js";
import { join, restart, type Rejoin } from "./rejoin.js";
import { Fault, Replica, type Step } from "./replica.js";
import type { Site } from "./site.js";

/** Where a document stands with the server. */
type Phase =
  /** There is no connection. */
  | { readonly at: "apart" }
  /** `open` is sent. */
  | { readonly at: "opening" }
  /** `opened` came; parts are coming in. */
  | { readonly at: "loading"; readonly opened: Opened; readonly loading: Loading }
  /** In the room and up to date, or, while `lagging` holds parts, on the way to it again. */
  | { readonly at: "live"; readonly room: number; lagging: Loading }
  | { readonly at: "waiting"; readonly until: number }
  /** The server does not want it. */
  | { readonly at: "refused"; readonly code: string; readonly text: string };

/** Diffs that came and are not applied yet. */
interface Waiting {
  /** What the document may lack. */
  fresh: Uint8Array[];
  /** All, own changes among them. */
  all: Uint8Array[];
  bytes: number;
  /** Where the replica will stand once they are merged. */
  cursor: Cursor | undefined;
}

/** What a batch on its way to the storage is. */
export type Ticket =
  /** Changes that are put into the queue, and others that leave it without being on the server. */
  | { readonly of: "edits"; readonly changes: readonly Pending[]; readonly gone: Gone }
  | { readonly of: "replica" }
  | { readonly of: "rest" };

/** Another page's change. */
export type SiblingContent = Content & { readonly page: string };

/** Changes that are not in the document any more: made anew, or refused. */
export interface Gone {
  readonly hashes: readonly Hash[];
  readonly remade: boolean;
}

/** So many dropped drafts are remembered; then the first is forgotten. */
const DROPPED_DRAFTS_MAX = 1_000;

/** An edit without an answer. */
export interface InFlight {
  readonly changes: readonly Pending[];
  readonly sentAt: number;
}

export class Document {
  readonly id: string;
  readonly replica: Replica;
  readonly presence = new Presence();
  readonly keeper: Keeper;
  readonly drafts = new Map<string, KeptDraft>();
  /** Drafts that were dropped here: the storage may show them once more. */
  readonly #dropped = new Set<string>();
  /** The change that an empty document begins with. */
  initial: Content | undefined;
  readonly inFlight = new Map<number, InFlight>();
  /** What is on its way to the storage. */
  readonly tickets = new Map<number, { readonly ticket: Ticket; readonly writes: readonly StorageWrite[] }>();
  /** The own changes that are in the storage, by key. */
  readonly queued = new Set<string>();
  /** Own changes that are not on their way to the storage yet. */
  unsaved: Pending[] = [];
  /** Own changes that stand on what the document lacks, since what was stored could not be read. */
  unplaced: Pending[] = [];
  /** Other pages' changes that stand on what has not come yet. */
  early: SiblingContent[] = [];
  /** Hashes that the server has thrown out. */
  readonly quarantined = new Set<Hash>();
  phase: Phase = { at: "apart" };
  rejoin: Rejoin = "trusting";
  access: Access | undefined;
  ready = false;
  /** When own changes that are not on their way to the storage go there. */
  storeAt: number | undefined;
  /** Until then own changes are gathered, to be sent together. */
  groupAt: number | undefined;
  holdUntil: number | undefined;
  holds = 0;
  /** The last application of diffs was in this step. */
  applied = false;
  /** Own changes that were acknowledged before their diff has come, by checksum. */
  readonly #acknowledged = new Map<number, { readonly bytes: Uint8Array; readonly position: number }>();
  #applyAt = 0;
  #attempts = 0;
  #waiting: Waiting = { fresh: [], all: [], bytes: 0, cursor: undefined };
  #published = "";

  constructor(id: string, actor: string, keeper: Keeper, initial: Content | undefined) {
    this.id = id;
    this.replica = new Replica(actor);
    this.keeper = keeper;
    this.initial = initial;
  }

  get room(): number | undefined {
    if (this.phase.at === "live") return this.phase.room;
    return this.phase.at === "loading" ? this.phase.opened.room : undefined;
  }

  get refusal(): string | undefined {
    return this.phase.at === "refused" ? this.phase.code : undefined;
  }

  /** Whether it waits for an `open` that can be sent now. */
  wantsOpen(now: number): boolean {
    return this.phase.at === "apart" || (this.phase.at === "waiting" && this.phase.until <= now);
  }

  /** Says `open`; gives the cursor that it names. */
  open(site: Site): Cursor | undefined {
    this.mergeWaiting(site);
    this.phase = { at: "opening" };
    const trusting = this.rejoin === "trusting";
    const heads = trusting && !this.replica.broken ? this.replica.confirmedHeads() : [];
    const cursor = trusting ? this.replica.cursor : undefined;
    site.send({ type: "open", document: this.id, cursor: cursor ?? null, heads: heads.length > HEADS_MAX ? [] : heads });
    return cursor;
  }

  /** Opened once more; if an empty one has nothing to begin with yet, with `initial`. */
  wanted(site: Site, initial: Content | undefined): void {
    this.forgive();
    if (this.initial !== undefined || initial === undefined) return;
    this.initial = initial;
    const isEmpty = this.phase.at === "live" && this.replica.cursor?.[1] === 0 && this.access === "write" && this.replica.heads.length === 0;
    if (isEmpty) restart(this, site);
  }

  /** The document is wanted again, whatever the server said of it before. */
  forgive(): void {
    if (this.phase.at === "refused") this.phase = { at: "apart" };
  }

  /** The answer to an `open` that named `sent`. */
  opened(site: Site, opened: Opened, sent: Cursor | undefined): void {
    this.phase = { at: "loading", opened, loading: new Loading() };
    if (opened.base === "replica" && sent !== undefined && !sameCursor(sent, this.replica.cursor)) return this.leaveAndWait(site);
    this.access = opened.access;
  }

  part(site: Site, part: Part): void {
    const phase = this.phase;
    if (phase.at !== "loading" && phase.at !== "live") return;
    const loading = phase.at === "loading" ? phase.loading : phase.lagging;
    try {
      loading.takeIn(part, site.own.loadingBytesMax);
    } catch (error) {
      this.leave(site);
      this.phase = { at: "refused", code: "limit", text: (error as Error).message };
      return;
    }
    if (part.end === null) return;
    this.mergeWaiting(site);
    // A fault in what waited has put the room away.
    if (this.phase !== phase) return;
    try {
      this.#complete(site, phase, loading.chunks(), part.end);
    } catch (error) {
      this.faulted(site, error);
    }
  }

  #complete(site: Site, phase: Phase & { at: "loading" | "live" }, chunks: Uint8Array, end: Cursor): void {
    if (phase.at === "loading") {
      this.phase = { at: "live", room: phase.opened.room, lagging: new Loading() };
      join(this, site, phase.opened, chunks, end);
    } else {
      phase.lagging = new Loading();
      this.changed(site, "remote", this.replica.load(chunks));
      this.keeper.took(site.now, [chunks], end);
    }
    this.replica.cursor = end;
    this.rejoin = "trusting";
    this.#waiting.cursor = end;
    // No diff brings what came in parts.
    for (const [sum, { position }] of this.#acknowledged) if (position <= end[1]) this.#acknowledged.delete(sum);
    this.ready = true;
    this.#attempts = 0;
    placeSiblings(this, site, []);
    if (this.presence.joined(site.now)) this.presenceChanged(site);
  }

  diff(site: Site, diff: Diff): void {
    const reached = this.#waiting.cursor;
    if (this.phase.at !== "live" || reached === undefined) return;
    const length = diff.runs.reduce((sum, run) => sum + run.changes.length, 0);
    const start = diff.cursor[1] - length;
    if (diff.cursor[0] !== reached[0] || start > reached[1] || start < 0) return this.leaveAndWait(site);
    let known = reached[1] - start;
    if (known > length) return;
    for (const change of diff.runs.flatMap((run) => run.changes)) {
      if (known > 0) known -= 1;
      else this.#take(site, change, diff.cursor);
    }
    this.#waiting.cursor = diff.cursor;
    if (this.#waiting.bytes > site.own.waitingBytesMax) this.mergeWaiting(site);
  }

  /** A change of the log: nobody is sent one before it is on disk ([E5]), so one that is ours is confirmed. */
  #take(site: Site, change: Uint8Array, cursor: Cursor): void {
    const chunk = change.slice();
    this.#waiting.all.push(chunk);
    this.#waiting.bytes += chunk.length;
    const pending = this.replica.pending.matching(chunk);
    const known = pending?.bytes ?? this.#acknowledged.get(sumOf(chunk))?.bytes;
    if (known === undefined || !sameBytes(known, chunk)) this.#waiting.fresh.push(chunk);
    if (pending !== undefined) this.confirm(site, pending, cursor);
    else this.#acknowledged.delete(sumOf(chunk));
  }

  /** The server has answered; the diff with the change may come later. */
  acknowledge(site: Site, pending: Pending, cursor: Cursor): void {
    const { replica, keeper } = this;
    replica.pending.delete(pending.hash);
    this.#acknowledged.set(sumOf(pending.bytes), { bytes: pending.bytes, position: cursor[1] });
    if (pending.key === "") return;
    if (pending.deps.some((dep) => replica.pending.has(dep))) keeper.confirmed(site.now, pending.key, cursor);
    else keeper.acknowledged(site.now, pending.key, cursor, pending.bytes);
  }

  /** The server has the change on its disk; `cursor` covers it. */
  confirm(site: Site, pending: Pending, cursor: Cursor): void {
    this.replica.pending.delete(pending.hash);
    if (pending.key !== "") this.keeper.confirmed(site.now, pending.key, cursor);
  }

  /** Merges the diffs that wait, in one call, and says so in one event. */
  mergeWaiting(site: Site): void {
    const { fresh, all, cursor } = this.#waiting;
    if (cursor === undefined || all.length === 0) return;
    this.#waiting = { fresh: [], all: [], bytes: 0, cursor };
    try {
      if (fresh.length > 0) {
        this.applied = true;
        const step = this.replica.merge(fresh);
        this.replica.cursor = cursor;
        this.keeper.took(site.now, all, cursor);
        this.changed(site, "remote", step);
        placeSiblings(this, site, []);
      } else {
        this.replica.cursor = cursor;
        this.keeper.took(site.now, all, cursor);
      }
    } catch (error) {
      this.faulted(site, error);
    }
  }

  /** Lets a draft go; whether it was there. */
  dropDraft(id: string): boolean {
    this.#dropped.add(id);
    for (const oldest of this.#dropped) if (this.#dropped.size > DROPPED_DRAFTS_MAX) this.#dropped.delete(oldest);
    return this.drafts.delete(id);
  }

  /** A draft that another page has left in the storage; whether it is news. */
  foundDraft(found: KeptDraft): boolean {
    if (this.drafts.has(found.id) || this.#dropped.has(found.id)) return false;
    this.drafts.set(found.id, found);
    return true;
  }

  /** The room is closed, or was never opened. */
  closed(site: Site, code: string, text: string): void {
    this.mergeWaiting(site);
    this.#putAway();
    if (code === "reset") this.rejoin = "reset";
    else if (code === "unavailable") this.#wait(site);
    else this.phase = { at: "refused", code, text };
    if (this.presence.clear()) this.presenceChanged(site);
  }

  /** The connection is gone. */
  disconnected(site: Site): void {
    this.mergeWaiting(site);
    if (this.phase.at !== "refused") this.#putAway();
    this.holdUntil = undefined;
    this.holds = 0;
    if (this.presence.clear()) this.presenceChanged(site);
  }

  #putAway(): void {
    this.phase = { at: "apart" };
    this.#waiting = { fresh: [], all: [], bytes: 0, cursor: undefined };
    this.#acknowledged.clear();
    this.inFlight.clear();
    this.replica.pending.unsend();
  }

  leave(site: Site): void {
    if (this.room !== undefined) site.send({ type: "leave", room: this.room });
    this.#putAway();
  }

  #wait(site: Site): void {
    this.#attempts += 1;
    // The first time may be an accident; after that the server gets some peace.
    const delay = this.#attempts === 1 ? 0 : site.backoffMs(this.#attempts);
    this.phase = { at: "waiting", until: site.now + delay };
  }

  leaveAndWait(site: Site): void {
    this.leave(site);
    this.#wait(site);
  }

  /** The document does not fit what the server sends, or Automerge panicked: it comes anew, whole. */
  faulted(site: Site, error: unknown): void {
    if (!(error instanceof Fault)) throw error;
    site.error("document", this.id, `${error.message}; the document is fetched anew`, error);
    if (this.rejoin === "trusting") this.rejoin = "whole";
    this.replica.cursor = undefined;
    this.replica.salvage(site.random.id());
    this.keeper.replaced();
    this.leaveAndWait(site);
  }

  /** Another page of this origin said something. */
  sibling(site: Site, message: SiblingMessage): void {
    switch (message.type) {
      case "edits":
        return placeSiblings(this, site, message.changes, message.page);
      case "gone":
        return gone(this, site, new Set(message.hashes), message.remade);
      case "dropped":
        return void this.dropDraft(message.draft);
      case "kept":
        return this.keeper.keptElsewhere(site.now, message.cursor);
    }
  }

  appointed(site: Site, stored: Stored | null): void {
    this.keeper.appointed(site.now, stored);
  }

  /** Stores and sends all that waits for its time, at once. */
  flush(site: Site): void {
    this.mergeWaiting(site);
    this.groupAt = undefined;
    storeUnsaved(this, site);
    this.keeper.hurry(site.now);
  }

  /** The end of a batch of events: merges what came, stores what is new, and sends what is due. */
  settle(site: Site, mayEdit: boolean): void {
    if (this.#applyAt <= site.now) this.mergeWaiting(site);
    if (this.storeAt !== undefined) storeUnsaved(this, site);
    if (this.groupAt !== undefined && this.groupAt <= site.now) this.groupAt = undefined;
    if (this.holdUntil !== undefined && this.holdUntil <= site.now) this.holdUntil = undefined;
    this.#keep(site);
    if (this.phase.at !== "live") return;
    if (mayEdit && this.groupAt === undefined && this.holdUntil === undefined) sendEdits(this, site);
    if (this.phase.at !== "live") return;
    const interval = 1000 / site.limits.presence_per_second;
    const due = this.presence.due(site.now, site.limits.presence_ttl_ms, interval);
    if (due !== undefined) site.send({ type: "presence", room: this.phase.room, state: due.state });
  }

  #keep(site: Site): void {
    try {
      const writes = this.keeper.due(site.now, this.replica);
      if (writes !== undefined) this.store(site, { of: "replica" }, writes);
    } catch (error) {
      this.faulted(site, error);
    }
  }

  /** Gives a batch to the storage. What the replica is made of can come from the server again: it may wait. */
  store(site: Site, ticket: Ticket, writes: readonly StorageWrite[]): void {
    const number = site.nextNumber();
    this.tickets.set(number, { ticket, writes });
    site.out.push({ type: "store", document: this.id, ticket: number, writes, mayWait: ticket.of === "replica" });
  }

  /** How long the last application took: the next one waits in proportion, so that the page stays responsive. */
  took(now: number, ms: number, limits: { applyPauseMs: number; applyPauseFactor: number; applyPauseMaxMs: number }): void {
    if (!this.applied) return;
    this.applied = false;
    const pause = Math.min(ms * limits.applyPauseFactor, limits.applyPauseMaxMs);
    this.#applyAt = now + Math.max(pause, limits.applyPauseMs);
  }

  nextWakeup(connected: boolean): number | undefined {
    const times = [this.storeAt, this.groupAt, this.keeper.nextWakeup];
    if (this.#waiting.all.length > 0) times.push(this.#applyAt);
    if (connected && this.phase.at === "waiting") times.push(this.phase.until);
    if (connected && this.phase.at === "live") times.push(this.holdUntil, this.presence.nextWakeup);
    const known = times.filter((time) => time !== undefined);
    return known.length === 0 ? undefined : Math.min(...known);
  }

  /** Where the document stands. */
  state(): DocumentState {
    return { status: this.#status(), ready: this.ready, safety: this.#safety(), unsynced: this.replica.pending.mine + this.unplaced.length };
  }

  #safety(): Safety {
    const { mine, unsent, unstored } = this.replica.pending;
    if (mine + this.unplaced.length === 0) return "durable";
    if (unstored > 0) return "unstored";
    return unsent + this.unplaced.length === 0 ? "sent" : "local";
  }

  #status(): DocumentStatus {
    switch (this.phase.at) {
      case "apart":
      case "opening":
      case "waiting":
        return { state: "opening" };
      case "loading":
        return { state: "loading", received: this.phase.loading.bytes, total: this.phase.opened.bytes };
      case "live":
        return { state: "live", access: this.access ?? "read" };
      case "refused":
        return { state: "refused", code: this.phase.code, reason: this.phase.text };
    }
  }

  /** Tells the app where the document stands, if that is news. */
  publish(site: Site): void {
    const state = this.state();
    const text = JSON.stringify(state);
    if (text === this.#published) return;
    this.#published = text;
    site.out.push({ type: "notify", notice: { type: "document", document: this.id, state } });
  }

  changed(site: Site, origin: "local" | "remote" | "replaced", step: Step): void {
    if (step.before === step.after) return;
    this.ready ||= A.getHeads(step.after).length > 0;
    site.out.push({ type: "notify", notice: { type: "changed", document: this.id, origin, ...step } });
  }

  presenceChanged(site: Site): void {
    site.out.push({ type: "notify", notice: { type: "presence", document: this.id } });
  }
}
