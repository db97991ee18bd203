/**
 * The client without the world: events in, effects out. No clock, no randomness but the seed, no timer, socket or storage.
 *
 * One `Core` is one connection with many documents. The shell hands in what happened with `step`, does the effects in order,
 * and comes back at `nextWakeup`. The same events at the same times with the same seed give the same effects.
 */
import type * as A from "@automerge/automerge";
import type { Access, ConnectionStatus } from "../status.js";
import { Malformed } from "../wire/msgpack.js";
import { decodeServer } from "../wire/decode.js";
import { encodeClient } from "../wire/encode.js";
import type { Closed, Cursor, Hash, Opened, ServerMessage } from "../wire/messages.js";
import type { DocumentState, Effect, Event, Notice } from "./boundary.js";
import { claim } from "./claim.js";
import type { Config } from "./config.js";
import { Connection, defaultServerLimits } from "./connection.js";
import { Document } from "./document.js";
import { acked, adopt, change, rejected, stored } from "./edits.js";
import { Keeper } from "./keeper.js";
import { draftKey, type Kept, type KeptDraft } from "./kept.js";
import type { Shown } from "./presence.js";
import { Random } from "./random.js";
import { makeDraftAnew, previewDraft } from "./drafts.js";
import { restart } from "./rejoin.js";
import { contentOf } from "./replica.js";
import { restore } from "./restore.js";
import { Site } from "./site.js";

/** A change of a document, made at `time` in seconds since 1970; `patched` is told what it changed. */
export type LocalChange = (doc: A.Doc<unknown>, patched: (patches: A.Patch[]) => void, time: number) => A.Doc<unknown>;

export class Core {
  readonly #config: Config;
  readonly #epoch: number;
  readonly #random: Random;
  readonly #connection: Connection;
  readonly #documents = new Map<string, Document>();
  readonly #rooms = new Map<number, string>();
  /** The `open`s without an answer, with the cursors they named. */
  readonly #opens = new Map<string, Cursor | undefined>();
  #user: string | null = null;
  #nextNumber = 1;
  #published = "";
  #roundTripMs: number | undefined;
  #out: Effect[] = [];

  /** A core that does nothing until `start`. `epoch` is what to add to its times for one as of `Date.now()`. */
  constructor(config: Config, epoch: number) {
    this.#config = config;
    this.#epoch = epoch;
    this.#random = new Random(config.seed);
    this.#connection = new Connection(config, this.#random);
  }

  /** Takes one event in, and gives what is to be done, in order. */
  step(now: number, event: Event): Effect[] {
    this.#handle(now, event);
    return this.#settled(now);
  }

  /** When `wake` is due at the latest. */
  get nextWakeup(): number | undefined {
    const connected = this.#connection.up !== undefined;
    const documents = [...this.#documents.values()].map((document) => document.nextWakeup(connected));
    const times = [this.#connection.nextWakeup, ...documents].filter((time) => time !== undefined);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** How long the last `step` took: documents that are slow to merge are merged more rarely. */
  took(now: number, ms: number): void {
    for (const document of this.#documents.values()) document.took(now, ms, this.#config.limits);
  }

  /** Makes a local change: all of it, or none if it throws. */
  change(now: number, id: string, make: LocalChange): { readonly hashes: Hash[]; readonly effects: Effect[] } {
    const document = this.#document(id);
    const patches: A.Patch[] = [];
    const before = document.replica.doc;
    const site = this.#site(now);
    const hashes = change(document, site, (doc) => make(doc, (more) => void patches.push(...more), site.seconds));
    document.changed(this.#site(now), "local", { before, after: document.replica.doc, patches });
    // It is stored with the others of this moment: `nextWakeup` is now.
    return { hashes, effects: this.#told(now) };
  }

  /** Makes a draft's changes anew on the document as it is; whether that was possible. The draft is then gone. */
  makeDraftAnew(now: number, id: string, draft: string): { readonly made: boolean; readonly effects: Effect[] } {
    const document = this.#document(id);
    const made = makeDraftAnew(document, this.#site(now), draft);
    return { made, effects: this.#settled(now) };
  }

  doc(id: string): A.Doc<unknown> {
    return this.#document(id).replica.doc;
  }

  state(id: string): DocumentState | undefined {
    return this.#documents.get(id)?.state();
  }

  access(id: string): Access | undefined {
    return this.#documents.get(id)?.access;
  }

  others(id: string): ReadonlyMap<number, Shown> {
    return this.#documents.get(id)?.presence.others ?? new Map<number, Shown>();
  }

  drafts(id: string): readonly KeptDraft[] {
    return [...(this.#documents.get(id)?.drafts.values() ?? [])];
  }

  /** The document as it would be with a draft; undefined if it does not fit any more. */
  previewDraft(id: string, draft: string): A.Doc<unknown> | undefined {
    return previewDraft(this.#document(id), draft);
  }

  /** The numbers of own changes grow; all below this one are on the server's disk. */
  oldestSerial(id: string): number {
    const document = this.#documents.get(id);
    if (document === undefined) return Infinity;
    return document.unplaced.length > 0 ? 0 : document.replica.pending.oldestSerial();
  }

  /** A number above those of all changes made so far. */
  get nextSerial(): number {
    return this.#nextNumber;
  }

  get status(): ConnectionStatus {
    const status = this.#connection.status;
    if (status.state !== "offline" || status.retryAt === undefined) return status;
    return { state: "offline", retryAt: Math.round(status.retryAt + this.#epoch) };
  }

  get session(): number | undefined {
    return this.#connection.up?.session;
  }

  get user(): string | null {
    return this.#user;
  }

  /** From an edit to its acknowledgement, the last time in any document. */
  get roundTripMs(): number | undefined {
    return this.#roundTripMs;
  }

  #document(id: string): Document {
    const document = this.#documents.get(id);
    if (document === undefined) throw new RangeError(`the document ${id} is not open`);
    return document;
  }

  #handle(now: number, event: Event): void {
    switch (event.type) {
      case "start":
        return this.#connection.start(now, this.#out);
      case "stop":
        this.#connection.stop(this.#out);
        return this.#apart(now);
      case "connected":
        return this.#connection.connected(this.#out);
      case "frame":
        return this.#received(now, event.bytes);
      case "text":
        return this.#malformed(now, new Malformed("wrong_type", "a text message is no message of the protocol"));
      case "disconnected":
        this.#connection.disconnected(now, event.code, this.#out);
        return this.#apart(now);
      case "token":
        if (this.#connection.token(now, event.token, this.#out)) this.#renewed(now);
        return;
      case "token-failed":
        this.#notify({ type: "error", kind: "token", text: "the token function failed; it is asked again", cause: event.error });
        return this.#connection.tokenFailed(now);
      case "user":
        return this.#userKnown(now, event.user);
      case "open":
        return this.#open(now, event.document, event.kept, event.initial);
      case "close":
        return this.#close(event.document);
      case "wake":
        return this.#woke(now);
      default:
        return this.#forDocument(now, event);
    }
  }

  #forDocument(now: number, event: Extract<Event, { readonly document: string }>): void {
    const document = this.#documents.get(event.document);
    if (document === undefined) return;
    const site = this.#site(now);
    switch (event.type) {
      case "stored":
        return stored(document, site, event.ticket, false);
      case "store-failed":
        site.error("storage", document.id, "storing failed; it is tried again, and changes are sent all the same", event.error);
        return stored(document, site, event.ticket, true);
      case "sibling":
        return document.sibling(site, event.message);
      case "adopted":
        return adopt(document, site, event.page, event.left);
      case "keeper":
        return document.appointed(site, event.stored);
      case "flush":
        return document.flush(site);
      case "presence":
        return this.#present(document, site, event.state);
      case "signal":
        return this.#signal(document, site, event.payload);
      case "draft-dropped":
        if (document.dropDraft(event.id)) document.store(site, { of: "rest" }, [{ remove: draftKey(document.id, event.id) }]);
        return;
      case "open":
      case "close":
        return;
    }
  }

  #site(now: number): Site {
    const up = this.#connection.up;
    return new Site({
      now,
      session: up?.session,
      limits: up?.limits ?? defaultServerLimits,
      own: this.#config.limits,
      random: this.#random,
      page: this.#config.page,
      groupMs: this.#config.groupMs,
      user: this.#user,
      epoch: this.#epoch,
      nextNumber: () => this.#nextNumber++,
      out: this.#out,
    });
  }

  #notify(notice: Notice): void {
    this.#out.push({ type: "notify", notice });
  }

  /** Opens what wants to be open, merges and sends what is due, and tells the app what is new. */
  #settled(now: number): Effect[] {
    if (this.#connection.isOpen) {
      for (const document of this.#documents.values()) {
        if (document.wantsOpen(now) && !this.#opens.has(document.id)) this.#opens.set(document.id, document.open(this.#site(now)));
      }
    }
    const up = this.#connection.up;
    const mayEdit = up !== undefined && up.goneAt === undefined;
    const site = this.#site(now);
    for (const document of this.#documents.values()) {
      // Whoever is alone begins with what everybody would begin with.
      if (!document.ready && document.initial !== undefined && this.#connection.isApart) restart(document, site);
      document.settle(site, mayEdit);
    }
    this.#forgetRooms();
    return this.#told(now);
  }

  #told(now: number): Effect[] {
    this.#publish(this.#site(now));
    const out = this.#out;
    this.#out = [];
    return out;
  }

  #publish(site: Site): void {
    const status = this.status;
    const text = JSON.stringify(status);
    if (text !== this.#published) {
      this.#published = text;
      this.#notify({ type: "connection", status });
    }
    for (const document of this.#documents.values()) document.publish(site);
  }

  #forgetRooms(): void {
    for (const [room, id] of this.#rooms) if (this.#documents.get(id)?.room !== room) this.#rooms.delete(room);
  }

  #open(now: number, id: string, kept: Kept, initial: Uint8Array | undefined): void {
    const known = this.#documents.get(id);
    const begin = initial === undefined ? undefined : contentOf(initial);
    if (known !== undefined) return known.wanted(this.#site(now), begin);
    const keeper = new Keeper(id, this.#config.limits);
    const document = new Document(id, this.#random.id(), keeper, begin);
    this.#documents.set(id, document);
    restore(document, this.#site(now), kept);
  }

  #close(id: string): void {
    const document = this.#documents.get(id);
    if (document === undefined) return;
    this.#documents.delete(id);
    if (document.room !== undefined) {
      this.#rooms.delete(document.room);
      this.#out.push({ type: "send", frame: encodeClient({ type: "leave", room: document.room }) });
    }
    this.#forgive("limit");
  }

  /** What was refused for this reason may be tried again. */
  #forgive(reason: string): void {
    for (const document of this.#documents.values()) if (document.refusal === reason) document.forgive();
  }

  /** A new token is on its way: it may grant what the former one did not. */
  #renewed(now: number): void {
    this.#forgive("forbidden");
    const site = this.#site(now);
    for (const document of this.#documents.values()) if (document.access === "read" && document.room !== undefined) document.leave(site);
  }

  #apart(now: number): void {
    if (this.#connection.isOpen) return;
    this.#rooms.clear();
    this.#opens.clear();
    const site = this.#site(now);
    for (const document of this.#documents.values()) document.disconnected(site);
  }

  #userKnown(now: number, user: string): void {
    if (this.#user === user) return;
    this.#user = user;
    const site = this.#site(now);
    for (const document of this.#documents.values()) claim(document, site, user);
  }

  #woke(now: number): void {
    const due = this.#connection.woke(now, this.#out);
    if (due === "lost") this.#apart(now);
    if (due !== "probe") return;
    // Without a room the answer is `not_open` ([O21]), a sign of life all the same.
    const room = this.#rooms.keys().next().value ?? 0;
    this.#out.push({ type: "send", frame: encodeClient({ type: "edit", room, id: this.#nextNumber++, changes: [] }) });
  }

  #present(document: Document, site: Site, state: Uint8Array | null): void {
    const max = site.limits.presence_bytes_max;
    if (state !== null && state.length > max) {
      return site.error("limit", document.id, `a presence state of ${state.length} bytes is above ${max} and is not sent`);
    }
    document.presence.set(site.now, state);
  }

  #signal(document: Document, site: Site, payload: Uint8Array): void {
    const max = site.limits.presence_bytes_max;
    if (payload.length > max) return site.error("limit", document.id, `a signal of ${payload.length} bytes is above ${max} and is not sent`);
    if (document.phase.at === "live") site.send({ type: "signal", room: document.phase.room, payload });
  }

  #received(now: number, frame: Uint8Array): void {
    if (!this.#connection.isOpen) return;
    this.#connection.heard(now);
    let message: ServerMessage;
    try {
      message = decodeServer(frame);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      return this.#malformed(now, error);
    }
    this.#said(now, message);
  }

  #malformed(now: number, error: Malformed): void {
    const text = `the server sent what is not in the protocol (${error.message}); connecting again`;
    this.#notify({ type: "error", kind: "protocol", text, cause: error });
    this.#out.push({ type: "disconnect" });
    this.#connection.disconnected(now, undefined, this.#out);
    this.#apart(now);
  }

  #said(now: number, message: ServerMessage): void {
    switch (message.type) {
      case "welcome":
        return this.#connection.welcomed(now, message);
      case "opened":
        return this.#opened(now, message);
      case "part":
        return this.#inRoom(now, message.room, (document, site) => document.part(site, message));
      case "diff":
        return this.#inRoom(now, message.room, (document, site) => document.diff(site, message));
      case "ack":
        return this.#inRoom(now, message.room, (document, site) => {
          this.#roundTripMs = acked(document, site, message.id, message.cursor) ?? this.#roundTripMs;
        });
      case "reject":
        return this.#inRoom(now, message.room, (document, site) => rejected(document, site, message.id, message.code, message.text));
      case "presence":
        return this.#inRoom(now, message.room, (document, site) => {
          document.presence.shown(message.entries, site.session ?? -1, site.own.presencesMax);
          document.presenceChanged(site);
        });
      case "signal":
        return this.#inRoom(now, message.room, (document) => {
          const { session, payload } = message;
          this.#notify({ type: "signal", document: document.id, session, payload: payload.slice() });
        });
      case "closed":
        return this.#closedBy(now, message);
      case "retry":
        return this.#connection.retry(now, message.after_ms);
      case "error":
        return this.#connection.errored(message.code, message.text);
    }
  }

  #opened(now: number, opened: Opened): void {
    if (!this.#opens.has(opened.document)) return;
    const sent = this.#opens.get(opened.document);
    this.#opens.delete(opened.document);
    const document = this.#documents.get(opened.document);
    if (document === undefined) {
      // Closed before the answer came.
      this.#out.push({ type: "send", frame: encodeClient({ type: "leave", room: opened.room }) });
      return;
    }
    this.#rooms.set(opened.room, document.id);
    document.opened(this.#site(now), opened, sent);
    this.#forgetRooms();
  }

  #closedBy(now: number, closed: Closed): void {
    const joined = closed.room !== null && this.#rooms.get(closed.room) === closed.document;
    // Whatever names the document answers an `open` ([O1]), also by a room's number that was never announced.
    const answers = !joined && this.#opens.delete(closed.document);
    if (joined || answers) this.#documents.get(closed.document)?.closed(this.#site(now), closed.code, closed.text);
    this.#forgetRooms();
  }

  /** Hands a room's message to its document; those for rooms that are left are ignored ([O20]). */
  #inRoom(now: number, room: number, handle: (document: Document, site: Site) => void): void {
    const document = this.#documents.get(this.#rooms.get(room) ?? "");
    if (document === undefined) return;
    handle(document, this.#site(now));
    this.#forgetRooms();
  }
}
