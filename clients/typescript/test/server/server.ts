/**
 * A small server in the same process: rooms, logs, acks, diffs, presence, as protocol/SPEC.md has them, over the real wire format.
 * It stores nothing and limits nothing; tests cut its connections, restart it and make it refuse.
 */
import * as A from "@automerge/automerge";
import type { Connection, Transport, TransportEvents } from "../../src/transport/transport.js";
import { decodeClient } from "../../src/wire/decode.js";
import { encodeServer } from "../../src/wire/encode.js";
import type { ClientMessage, Cursor, Hash, Limits, ServerMessage } from "../../src/wire/messages.js";

/** A change in a log. */
interface Entry {
  readonly chunk: Uint8Array;
  readonly hash: Hash;
  readonly deps: readonly Hash[];
  readonly actor: string;
  readonly seq: number;
}

interface Room {
  readonly number: number;
  readonly document: string;
  readonly log: Entry[];
  readonly members: Set<Peer>;
}

/** What the server says to an edit before it looks at it: a code to reject it with, or undefined. */
export type Judge = (document: string, changes: readonly A.DecodedChange[]) => string | undefined;

/** The server. */
export class TestServer {
  /** Edits that it refuses; none by default. */
  judge: Judge = () => undefined;
  /** Documents that it does not open, and the code to say so with. */
  refuse: (document: string) => string | undefined = () => undefined;
  /** Whether it is there; while it is not, connecting fails. */
  up = true;
  readonly #rooms = new Map<string, Room>();
  readonly #peers = new Set<Peer>();
  #epoch = 1;
  #sessions = 0;

  /** A way to connect for one client. */
  transport(): Transport {
    return { connect: (_url, hears) => this.#connect(hears) };
  }

  /** All changes of a document, in order. */
  log(document: string): readonly Entry[] {
    return this.#rooms.get(document)?.log ?? [];
  }

  /** The document as the server has it. */
  doc<T>(document: string): A.Doc<T> {
    return A.applyChanges(A.init<T>(), this.log(document).map(({ chunk }) => chunk))[0];
  }

  /** How many connections are there. */
  get connections(): number {
    return this.#peers.size;
  }

  /** How many members a room has. */
  members(document: string): number {
    return this.#rooms.get(document)?.members.size ?? 0;
  }

  /** Cuts all connections. */
  cut(): void {
    for (const peer of [...this.#peers]) peer.end(undefined);
  }

  /** Comes back as another life of the same logs, each cut to its first `kept` changes. */
  restore(document: string, kept: number): void {
    this.cut();
    this.#epoch += 1;
    this.#rooms.get(document)?.log.splice(kept);
  }

  #connect(hears: TransportEvents): Connection {
    const peer = new Peer(++this.#sessions, hears, (message) => this.#received(peer, message), () => this.#gone(peer));
    if (this.up) {
      this.#peers.add(peer);
      peer.later(() => hears.opened());
    } else {
      peer.end(undefined);
    }
    return { send: (frame) => peer.receive(frame), close: () => peer.close() };
  }

  #gone(peer: Peer): void {
    this.#peers.delete(peer);
    for (const room of this.#rooms.values()) this.#leave(room, peer);
  }

  #received(peer: Peer, message: ClientMessage): void {
    switch (message.type) {
      case "hello":
        return peer.send({ type: "welcome", session: peer.session, limits: LIMITS, capabilities: [] });
      case "auth":
        return;
      case "open":
        return this.#open(peer, message.document, message.cursor);
      case "edit":
        return this.#edit(peer, message.room, message.id, message.changes);
      case "presence":
        return this.#present(peer, message.room, message.state);
      case "signal":
        for (const other of this.#room(message.room)?.members ?? []) {
          if (other !== peer) other.send({ type: "signal", room: message.room, session: peer.session, payload: message.payload });
        }
        return;
      case "leave": {
        const room = this.#room(message.room);
        return room && this.#leave(room, peer);
      }
    }
  }

  #room(number: number): Room | undefined {
    return [...this.#rooms.values()].find((room) => room.number === number);
  }

  #open(peer: Peer, document: string, cursor: Cursor | null): void {
    const code = this.refuse(document);
    if (code !== undefined) return peer.send({ type: "closed", room: null, document, code, text: `the test says ${code}` });
    const room = this.#rooms.get(document) ?? { number: this.#rooms.size + 1, document, log: [], members: new Set() };
    this.#rooms.set(document, room);
    room.members.add(peer);
    const known = cursor !== null && cursor[0] === this.#epoch && cursor[1] <= room.log.length;
    const chunks = room.log.slice(known ? cursor[1] : 0).map(({ chunk }) => chunk);
    const bytes = Buffer.concat(chunks);
    const end: Cursor = [this.#epoch, room.log.length];
    const common = { room: room.number, cursor: end, bytes: bytes.length };
    peer.send({ type: "opened", ...common, document, access: "write", heads: headsOf(room.log), base: known ? "replica" : "nothing" });
    peer.send({ type: "part", room: room.number, packing: "plain", bytes, end });
    const entries = [...room.members].flatMap((member) => member.entry(room));
    if (entries.length > 0) peer.send({ type: "presence", room: room.number, entries });
  }

  #edit(peer: Peer, number: number, id: number, chunks: readonly Uint8Array[]): void {
    const room = this.#room(number);
    const reject = (code: string): void => peer.send({ type: "reject", room: number, id, code, text: `the test says ${code}` });
    if (room === undefined || !room.members.has(peer)) return reject("not_open");
    const changes = chunks.map((chunk) => A.decodeChange(chunk));
    const refused = peer.refused(room);
    const known = new Set(room.log.map(({ hash }) => hash));
    const fresh: Entry[] = [];
    let code = this.judge(room.document, changes);
    for (const [at, { hash, deps, actor, seq }] of changes.entries()) {
      if (hash === null || known.has(hash)) continue;
      if (refused.has(actor)) code = "after_reject";
      else if (room.log.some((entry) => entry.actor === actor && entry.seq === seq)) code ??= "actor_conflict";
      else if (!deps.every((dep) => known.has(dep))) code ??= "missing_deps";
      known.add(hash);
      fresh.push({ chunk: chunks[at]!.slice(), hash, deps, actor, seq });
    }
    if (code !== undefined) {
      if (!TEMPORARY.has(code)) for (const { actor } of fresh) refused.add(actor);
      return reject(code);
    }
    room.log.push(...fresh);
    const cursor: Cursor = [this.#epoch, room.log.length];
    const runs = [{ session: peer.session, changes: fresh.map(({ chunk }) => chunk) }];
    if (fresh.length > 0) for (const member of room.members) member.send({ type: "diff", room: number, cursor, runs });
    peer.send({ type: "ack", room: number, id, cursor });
  }

  #present(peer: Peer, number: number, state: Uint8Array | null): void {
    const room = this.#room(number);
    if (room === undefined || !room.members.has(peer)) return;
    peer.states.set(room, state?.slice() ?? null);
    this.#tellPresence(room, peer, state);
  }

  #tellPresence(room: Room, peer: Peer, state: Uint8Array | null): void {
    const entries = [{ session: peer.session, subject: `subject ${peer.session}`, name: null, state }];
    for (const member of room.members) member.send({ type: "presence", room: room.number, entries });
  }

  #leave(room: Room, peer: Peer): void {
    if (!room.members.delete(peer)) return;
    if (peer.states.delete(room)) this.#tellPresence(room, peer, null);
  }
}

/** A connection, seen from the server. Nothing is told before the call that caused it has returned. */
class Peer {
  readonly session: number;
  readonly states = new Map<Room, Uint8Array | null>();
  readonly #refused = new Map<Room, Set<string>>();
  readonly #hears: TransportEvents;
  readonly #heard: (message: ClientMessage) => void;
  readonly #gone: () => void;
  #open = true;
  #ended = false;

  constructor(session: number, hears: TransportEvents, heard: (message: ClientMessage) => void, gone: () => void) {
    this.session = session;
    this.#hears = hears;
    this.#heard = heard;
    this.#gone = gone;
  }

  refused(room: Room): Set<string> {
    const refused = this.#refused.get(room) ?? new Set<string>();
    this.#refused.set(room, refused);
    return refused;
  }

  entry(room: Room): Array<{ session: number; subject: string; name: null; state: Uint8Array }> {
    const state = this.states.get(room);
    return state ? [{ session: this.session, subject: `subject ${this.session}`, name: null, state }] : [];
  }

  later(work: () => void): void {
    setTimeout(() => this.#open && work(), 0);
  }

  receive(frame: Uint8Array): void {
    const message = decodeClient(frame.slice());
    this.later(() => !this.#ended && this.#heard(message));
  }

  send(message: ServerMessage): void {
    const frame = encodeServer(message);
    this.later(() => this.#hears.frame(frame));
  }

  /** By the client. */
  close(): void {
    this.#open = false;
    this.#gone();
  }

  /** By the server or the network. */
  end(code: number | undefined): void {
    this.#gone();
    if (this.#ended) return;
    this.#ended = true;
    this.later(() => {
      this.#open = false;
      this.#hears.closed(code);
    });
  }
}

function headsOf(log: readonly Entry[]): Hash[] {
  const below = new Set(log.flatMap(({ deps }) => deps));
  return log.filter(({ hash }) => !below.has(hash)).map(({ hash }) => hash);
}

const TEMPORARY: ReadonlySet<string> = new Set(["missing_deps", "unavailable", "not_open"]);

const LIMITS: Limits = {
  frame_bytes_max: 1 << 20,
  edits_per_second: 100,
  presence_per_second: 1_000,
  presence_bytes_max: 4_096,
  presence_ttl_ms: 60_000,
  ops_per_change_max: 200_000,
  documents_per_session_max: 64,
  idle_timeout_ms: 45_000,
};
