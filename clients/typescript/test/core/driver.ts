/** A core, and a hand that plays everything around it: the clock, the socket, the storage, the server's words. */
import * as A from "@automerge/automerge";
import type { Effect, Event, Notice } from "../../src/core/boundary.js";
import { defaultLimits, type ClientLimits, type Credentials } from "../../src/core/config.js";
import { Core } from "../../src/core/core.js";
import { initialChange } from "../../src/core/initial.js";
import { nothingKept, type Kept } from "../../src/core/kept.js";
import { decodeClient } from "../../src/wire/decode.js";
import { encodeServer } from "../../src/wire/encode.js";
import { LIMIT_NAMES, type ClientMessage, type Cursor, type Limits, type ServerMessage } from "../../src/wire/messages.js";

export interface Notes {
  text: string;
}

export const noLimits = Object.fromEntries(LIMIT_NAMES.map((name) => [name, 0])) as unknown as Limits;

export class Driver {
  readonly core: Core;
  now = 0;
  /** What the core sent, decoded. */
  sent: ClientMessage[] = [];
  effects: Effect[] = [];
  notices: Notice[] = [];
  /** Batches that are not answered; `storage` answers them at once. */
  storage: "works" | "waits" = "works";

  constructor({ credentials = { kind: "none" }, limits = {} }: { credentials?: Credentials; limits?: Partial<ClientLimits> } = {}) {
    const seed = new Uint8Array(32).map((_, at) => at * 7 + 1);
    const config = { name: "test", credentials, seed, page: "page", groupMs: 50, limits: { ...defaultLimits, ...limits } };
    this.core = new Core(config, 1_700_000_000_000);
  }

  step(event: Event): Effect[] {
    return this.#took(this.core.step(this.now, event));
  }

  /** Time passes; the core is woken whenever it asks for it. */
  pass(ms: number): void {
    const end = this.now + ms;
    for (let at = this.core.nextWakeup; at !== undefined && at <= end; at = this.core.nextWakeup) {
      this.now = Math.max(this.now, at);
      this.step({ type: "wake" });
    }
    this.now = end;
  }

  say(message: ServerMessage): void {
    this.step({ type: "frame", bytes: encodeServer(message) });
  }

  /** Goes through the handshake. */
  connect(limits: Partial<Limits> = {}): void {
    this.step({ type: "start" });
    this.step({ type: "connected" });
    this.say({ type: "welcome", session: 7, limits: { ...noLimits, ...limits }, capabilities: [] });
  }

  open(kept: Kept = nothingKept, initial?: Notes): void {
    this.step({ type: "open", document: "d", kept, initial: initial === undefined ? undefined : initialChange(initial) });
    this.step({ type: "keeper", document: "d", stored: kept.stored ?? { cursor: undefined, generation: 0, keys: [] } });
  }

  /** The document comes: these changes, up to `cursor`. */
  come(changes: readonly Uint8Array[], cursor: Cursor, { base = "nothing", heads }: { base?: "nothing" | "replica"; heads?: string[] } = {}): void {
    const [doc] = A.applyChanges(A.init(), [...changes]);
    const bytes = new Uint8Array(changes.flatMap((change) => [...change]));
    const named = heads ?? A.getHeads(doc);
    this.say({ type: "opened", room: 1, document: "d", access: "write", heads: named, cursor, base, bytes: bytes.length });
    this.say({ type: "part", room: 1, packing: "plain", bytes, end: cursor });
  }

  diff(changes: readonly Uint8Array[], cursor: Cursor, session = 9): void {
    this.say({ type: "diff", room: 1, cursor, runs: [{ session, changes: [...changes] }] });
  }

  type(text: string, at = 0): string[] {
    const { hashes, effects } = this.core.change(this.now, "d", (doc, _, time) =>
      A.change(doc as A.Doc<Notes>, { time }, (notes) => A.splice(notes, ["text"], at, 0, text)),
    );
    this.#took(effects);
    return hashes;
  }

  get text(): string {
    return (this.core.doc("d") as Notes).text;
  }

  edits(): Array<ClientMessage & { type: "edit" }> {
    return this.sent.filter((message) => message.type === "edit");
  }

  errors(): string[] {
    return this.notices.flatMap((notice) => (notice.type === "error" ? [notice.kind] : []));
  }

  #took(effects: Effect[]): Effect[] {
    this.effects.push(...effects);
    for (const effect of effects) {
      if (effect.type === "send") this.sent.push(decodeClient(effect.frame));
      if (effect.type === "notify") this.notices.push(effect.notice);
      if (effect.type === "store" && this.storage === "works") {
        this.step({ type: "stored", document: effect.document, ticket: effect.ticket });
      }
    }
    return effects;
  }
}

/** Somebody else's document, to take changes from. */
export function others(text = ""): { doc: A.Doc<Notes>; all: Uint8Array[] } {
  const doc = A.change(A.init<Notes>({ actor: "0b".repeat(16) }), { time: 0 }, (notes) => {
    notes.text = text;
  });
  return { doc, all: A.getAllChanges(doc) };
}
