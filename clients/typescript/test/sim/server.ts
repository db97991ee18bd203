/** A small model of the server: documents as logs with an epoch, synced when told, in real frames. */
import * as A from "@automerge/automerge";
import { joined } from "../../src/core/kept.js";
import { decodeClient } from "../../src/wire/decode.js";
import { encodeServer } from "../../src/wire/encode.js";
import { LIMIT_NAMES, type ClientMessage, type Cursor, type Limits, type Run, type ServerMessage } from "../../src/wire/messages.js";

interface Entry {
  readonly session: number;
  readonly hash: string;
  readonly actor: string;
  readonly seq: number;
  readonly deps: readonly string[];
  readonly bytes: Uint8Array;
}

interface Log {
  readonly room: number;
  epoch: number;
  /** On disk. */
  synced: Entry[];
  /** Taken in: a crash forgets these. */
  unsynced: Array<{ entry: Entry; ack: number | undefined }>;
  acks: Array<{ session: number; id: number }>;
  /** Positions before this one cannot be resynced from. */
  keptFrom: number;
  readonly members: Set<number>;
  readonly quarantined: Set<string>;
  merged: { readonly epoch: number; readonly length: number; readonly doc: A.Doc<unknown> };
}

const limits = { ...Object.fromEntries(LIMIT_NAMES.map((name) => [name, 0])), frame_bytes_max: 1 << 20 } as unknown as Limits;

export class ModelServer {
  readonly #logs = new Map<string, Log>();
  #nextSession = 1;
  /** How a frame reaches a session. */
  send: (session: number, frame: Uint8Array) => void = () => {};
  /** All changes that were acknowledged or shown, by hash. */
  readonly promised = new Set<string>();
  /** Refuses the next so many edits with this code. */
  refuse: { code: string; left: number } = { code: "limit", left: 0 };
  /** How many bytes of a part make up one. */
  partBytes = 200;

  accept(): number {
    return this.#nextSession++;
  }

  gone(session: number): void {
    for (const log of this.#logs.values()) log.members.delete(session);
  }

  /** Power fails: what was not synced is gone, and so are all sessions. */
  crash(): void {
    for (const log of this.#logs.values()) {
      log.unsynced = [];
      log.acks = [];
      log.members.clear();
    }
  }

  /** The log up to now cannot be resynced from any more. */
  compact(document: string): void {
    const log = this.#log(document);
    log.keptFrom = log.synced.length;
  }

  /** An old backup takes the place of the document; the changes that are gone come back. */
  restore(document: string, length: number): Entry[] {
    const log = this.#log(document);
    const lost = log.synced.slice(length);
    log.synced = log.synced.slice(0, length);
    log.unsynced = [];
    log.acks = [];
    log.epoch += 1;
    for (const { hash } of lost) this.promised.delete(hash);
    return lost;
  }

  /** Throws a change out, with all that stands on it. */
  quarantine(document: string, at: number): Entry[] {
    const log = this.#log(document);
    const culprit = log.synced[at];
    if (culprit === undefined) return [];
    const bad = new Set([culprit.hash]);
    for (const { hash, deps } of log.synced) if (deps.some((dep) => bad.has(dep))) bad.add(hash);
    const lost = log.synced.filter(({ hash }) => bad.has(hash));
    log.synced = log.synced.filter(({ hash }) => !bad.has(hash));
    for (const hash of bad) {
      log.quarantined.add(hash);
      this.promised.delete(hash);
    }
    log.unsynced = [];
    log.acks = [];
    log.epoch += 1;
    for (const session of log.members) this.#say(session, { type: "closed", room: log.room, document, code: "reset", text: "" });
    log.members.clear();
    return lost;
  }

  /** Loses a change without a word, as a disk that lies. */
  forget(document: string): void {
    const log = this.#log(document);
    log.synced.pop();
    log.merged = { epoch: 0, length: 0, doc: A.init() };
  }

  length(document: string): number {
    return this.#log(document).synced.length;
  }

  epoch(document: string): number {
    return this.#log(document).epoch;
  }

  has(document: string, hash: string): boolean {
    return this.#log(document).synced.some((entry) => entry.hash === hash);
  }

  document<T>(document: string): A.Doc<T> {
    const log = this.#log(document);
    const [from, doc] = log.merged.epoch === log.epoch ? [log.merged.length, log.merged.doc] : [0, A.init<unknown>()];
    const chunks = log.synced.slice(from).map(({ bytes }) => bytes);
    log.merged = { epoch: log.epoch, length: log.synced.length, doc: A.applyChanges(doc, chunks)[0] };
    return log.merged.doc as A.Doc<T>;
  }

  receive(session: number, frame: Uint8Array): void {
    const message = decodeClient(frame);
    switch (message.type) {
      case "hello":
        return this.#say(session, { type: "welcome", session, limits, capabilities: [] });
      case "open":
        return this.#open(session, message);
      case "edit":
        return this.#edit(session, message);
      case "leave":
        for (const log of this.#logs.values()) if (log.room === message.room) log.members.delete(session);
        return;
      case "auth":
      case "presence":
      case "signal":
        return;
    }
  }

  /** The disk has everything: acks and diffs go out. */
  sync(): void {
    for (const log of this.#logs.values()) {
      const acks = log.acks;
      log.acks = [];
      const runs: Array<Run & { changes: Uint8Array[] }> = [];
      for (const { entry, ack } of log.unsynced) {
        const last = runs.at(-1);
        if (last?.session === entry.session) last.changes.push(entry.bytes);
        else runs.push({ session: entry.session, changes: [entry.bytes] });
        if (ack !== undefined) acks.push({ session: entry.session, id: ack });
        log.synced.push(entry);
        this.promised.add(entry.hash);
      }
      log.unsynced = [];
      const cursor = this.#cursor(log);
      const diff = { type: "diff", room: log.room, cursor, runs } as const;
      const tell = () => {
        if (runs.length > 0) for (const member of log.members) this.#say(member, diff);
      };
      // In either order ([E10]).
      if (log.synced.length % 2 === 0) tell();
      for (const { session, id } of acks) {
        if (log.members.has(session)) this.#say(session, { type: "ack", room: log.room, id, cursor });
      }
      if (log.synced.length % 2 === 1) tell();
    }
  }

  #say(session: number, message: ServerMessage): void {
    this.send(session, encodeServer(message));
  }

  #cursor(log: Log): Cursor {
    return [log.epoch, log.synced.length];
  }

  #log(document: string): Log {
    const known = this.#logs.get(document);
    if (known !== undefined) return known;
    const log: Log = {
      room: this.#logs.size + 1,
      epoch: 1,
      synced: [],
      unsynced: [],
      acks: [],
      keptFrom: 0,
      members: new Set(),
      quarantined: new Set(),
      merged: { epoch: 0, length: 0, doc: A.init() },
    };
    this.#logs.set(document, log);
    return log;
  }

  #open(session: number, { document, cursor: sent }: ClientMessage & { type: "open" }): void {
    const log = this.#log(document);
    log.members.add(session);
    const cursor = this.#cursor(log);
    const from = sent !== null && sent[0] === log.epoch && sent[1] >= log.keptFrom && sent[1] <= cursor[1] ? sent[1] : undefined;
    const entries = log.synced.slice(from ?? 0).map(({ bytes }) => bytes);
    const whole = () => (entries.length === 0 ? new Uint8Array() : A.save(this.document(document)));
    const bytes = from === undefined ? whole() : joined(entries);
    const base = from === undefined ? "nothing" : "replica";
    const { room } = log;
    const heads = A.getHeads(this.document(document));
    this.#say(session, { type: "opened", room, document, access: "write", heads, cursor, base, bytes: bytes.length });
    for (let at = 0; at < bytes.length || at === 0; at += this.partBytes) {
      const end = at + this.partBytes >= bytes.length ? cursor : null;
      this.#say(session, { type: "part", room, packing: "plain", bytes: bytes.subarray(at, at + this.partBytes), end });
    }
  }

  #edit(session: number, { room, id, changes }: ClientMessage & { type: "edit" }): void {
    const log = [...this.#logs.values()].find((each) => each.room === room && each.members.has(session));
    const reject = (code: string) => this.#say(session, { type: "reject", room, id, code, text: "no" });
    if (log === undefined) return reject("not_open");
    if (changes.length > 0 && this.refuse.left > 0) {
      this.refuse.left -= 1;
      return reject(this.refuse.code);
    }
    const taken: Entry[] = [];
    const there = () => [...log.synced, ...log.unsynced.map(({ entry }) => entry), ...taken];
    for (const bytes of changes) {
      const { hash, actor, seq, deps } = A.decodeChange(bytes);
      if (hash === null) throw new Error("a change without a hash");
      if (log.quarantined.has(hash)) return reject("quarantined");
      const same = there().find((entry) => entry.actor === actor && entry.seq === seq);
      if (same?.hash === hash) continue;
      if (same !== undefined) return reject("actor_conflict");
      if (!deps.every((dep) => there().some((entry) => entry.hash === dep))) return reject("missing_deps");
      taken.push({ session, hash, actor, seq, deps, bytes: bytes.slice() });
    }
    if (taken.length === 0) log.acks.push({ session, id });
    taken.forEach((entry, at) => log.unsynced.push({ entry, ack: at === taken.length - 1 ? id : undefined }));
  }
}
