/** Does what the core decides: the socket, the storage, the timer, the token function, the app's handlers. Decides nothing. */
import { Core, type LocalChange } from "../core/core.js";
import type { Effect, Event, Notice } from "../core/boundary.js";
import { defaultLimits, type ClientLimits, type Credentials } from "../core/config.js";
import { nothingKept } from "../core/kept.js";
import { Random } from "../core/random.js";
import { Emitter } from "../emitter.js";
import { ClientError, type ClientEvents, type Safety } from "../status.js";
import { scopedStorage } from "../storage/scoped.js";
import type { Storage } from "../storage/storage.js";
import type { Tabs } from "../tabs/tabs.js";
import type { Connection, Transport } from "../transport/transport.js";
import type { Hash } from "../wire/messages.js";
import type { Clock } from "./clock.js";
import { OpenDocument } from "./open-document.js";
import { claims } from "./token.js";
import { Writer } from "./writer.js";

/** The name of this software in `hello`. */
const NAME = "syncline-ts/0.1.0";
/** Where the storage keeps whose it was last. */
const USER_KEY = "user";
/** So many closed documents go on until the server has their changes. */
const LINGERING_MAX = 32;

export interface ShellOptions {
  readonly url: string;
  readonly token: string | (() => Promise<string>) | undefined;
  readonly storage: Storage;
  readonly tabs: Tabs | undefined;
  readonly transport: Transport;
  readonly user: string | undefined;
  readonly groupMs: number;
  readonly offline: boolean;
  readonly clock: Clock;
  readonly seed: Uint8Array;
  readonly limits: Partial<ClientLimits>;
}

export class Shell {
  readonly core: Core;
  readonly page: string;
  /** Names the server among those that share a storage and an origin. */
  readonly scope: string;
  readonly storage: Storage;
  readonly tabs: Tabs | undefined;
  readonly writer: Writer;
  readonly events: Emitter<ClientEvents>;
  /** Resolves when the client knows whose it was last. */
  readonly started: Promise<void>;
  /** Nothing is opened any more. */
  isClosed = false;
  bytesIn = 0;
  bytesOut = 0;
  readonly #options: ShellOptions;
  readonly #documents = new Map<string, OpenDocument>();
  readonly #queue: Effect[] = [];
  #draining = false;
  #connection: Connection | undefined;
  #cancelTimer: (() => void) | undefined;
  #timerAt: number | undefined;
  #tokenAsked = 0;
  #wanted: boolean;
  #closed = false;
  #safety = "";
  #inError = false;
  #isStarted = false;
  #userStored = false;

  constructor(options: ShellOptions) {
    this.#options = options;
    this.#wanted = !options.offline;
    const random = new Random(options.seed);
    this.page = random.id();
    this.scope = scopeOf(options.url);
    this.storage = scopedStorage(options.storage, `s/${this.scope}/`);
    this.tabs = options.tabs;
    this.writer = new Writer(this.storage, options.clock);
    this.events = new Emitter((error) => this.handlerFailed(error));
    const { token, clock } = options;
    const asked = typeof token === "function";
    const credentials: Credentials = asked ? { kind: "asked" } : token === undefined ? { kind: "none" } : { kind: "fixed", token };
    const limits = { ...defaultLimits, ...options.limits };
    const seed = options.seed.slice().reverse();
    const config = { name: NAME, credentials, seed, page: this.page, groupMs: options.groupMs, limits };
    this.core = new Core(config, clock.wall() - clock.now());
    this.started = this.#start();
  }

  get clock(): Clock {
    return this.#options.clock;
  }

  get now(): number {
    return this.#options.clock.now();
  }

  /** Hands an event to the core and does what comes of it. */
  step(event: Event): void {
    if (this.#closed) return;
    const before = this.now;
    const effects = this.core.step(before, event);
    this.core.took(this.now, this.now - before);
    this.#do(effects);
  }

  change(document: string, make: LocalChange): Hash[] {
    const { hashes, effects } = this.#tried(() => this.core.change(this.now, document, make));
    this.#do(effects);
    return hashes;
  }

  makeDraftAnew(document: string, draft: string): boolean {
    const { made, effects } = this.#tried(() => this.core.makeDraftAnew(this.now, document, draft));
    this.#do(effects);
    return made;
  }

  /** What a change that throws has left to do is done all the same. */
  #tried<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      this.step({ type: "wake" });
      throw error;
    }
  }

  /** The document, opened if it is not. */
  open(id: string, initial: Uint8Array | undefined): OpenDocument {
    const known = this.#documents.get(id);
    if (known !== undefined && known.closing === undefined) {
      const again = () => known.isOpen && this.step({ type: "open", document: id, kept: nothingKept, initial });
      if (known.isOpen) again();
      else void known.opened.then(again);
      return known;
    }
    const opened = new OpenDocument(this, id, initial, known?.closing);
    this.#documents.set(id, opened);
    return opened;
  }

  forget(document: OpenDocument): void {
    if (this.#documents.get(document.id) === document) this.#documents.delete(document.id);
  }

  /** One more document goes on without anybody. If those are too many, the first is closed: its changes stay stored. */
  lingers(): void {
    const lingering = this.documents.filter((document) => document.lingers);
    if (lingering.length > LINGERING_MAX) void lingering[0]!.end();
  }

  get documents(): readonly OpenDocument[] {
    return [...this.#documents.values()];
  }

  /** Over all documents. */
  get safety(): { readonly safety: Safety; readonly unsyncedChanges: number } {
    const states = this.documents.flatMap(({ id }) => this.core.state(id) ?? []);
    const order: readonly Safety[] = ["unstored", "local", "sent", "durable"];
    const safety = order.find((each) => states.some((state) => state.safety === each)) ?? "durable";
    return { safety, unsyncedChanges: states.reduce((sum, { unsynced }) => sum + unsynced, 0) };
  }

  goOnline(): void {
    this.#wanted = true;
    if (this.#isStarted) this.step({ type: "start" });
  }

  goOffline(): void {
    this.#wanted = false;
    if (this.#isStarted) this.step({ type: "stop" });
  }

  /** Tries at once rather than at the end of a backoff. */
  networkIsBack(): void {
    if (this.#wanted && this.core.status.state === "offline") this.goOnline();
  }

  /** Stores what is not stored yet; for a page that may be gone soon. */
  flush(): void {
    this.writer.atLast(() => {
      for (const { id, isOpen } of this.documents) if (isOpen) this.step({ type: "flush", document: id });
    });
  }

  async close(): Promise<void> {
    await this.started;
    this.flush();
    await this.writer.settled();
    this.step({ type: "stop" });
    this.#closed = true;
    this.#cancelTimer?.();
  }

  held(document: string, count: number): void {
    const text = `${count} changes of another user are kept and not sent; adoptQueues() would send them`;
    this.error(new ClientError("held", text, document));
  }

  storageFailed(document: string, error: unknown): void {
    const text = "the storage failed; what comes from the server and what is changed is shown and sent all the same";
    this.error(new ClientError("storage", text, document, { cause: error }));
  }

  handlerFailed(error: unknown): void {
    this.error(new ClientError("handler", "a handler of the app threw", undefined, { cause: error }));
  }

  error(error: ClientError): void {
    // An error handler that throws is not told of itself.
    if (this.#inError) return;
    this.#inError = true;
    if (this.events.isHeard("error")) this.events.emit("error", error);
    // Nobody listens: without this line a client that cannot work would look like one that waits.
    else console.error(error);
    this.#inError = false;
  }

  async #start(): Promise<void> {
    const { user, token } = this.#options;
    const known = user ?? (token === undefined ? "" : typeof token === "string" ? (claims(token).subject ?? "") : undefined);
    if (known !== undefined) {
      this.#userKnown(known);
    } else {
      const last = await this.storage.get(USER_KEY).catch(() => undefined);
      if (last !== undefined) this.step({ type: "user", user: new TextDecoder().decode(last) });
    }
    this.#isStarted = true;
    if (this.#wanted) this.step({ type: "start" });
  }

  #userKnown(user: string): void {
    if (this.core.user === user && this.#userStored) return;
    this.#userStored = true;
    this.writer.write([{ put: USER_KEY, value: new TextEncoder().encode(user) }]);
    this.step({ type: "user", user });
  }

  /** Effects of handlers that change something go behind those that are being done. */
  #do(effects: readonly Effect[]): void {
    this.#queue.push(...effects);
    if (this.#draining) return;
    this.#draining = true;
    try {
      for (let effect = this.#queue.shift(); effect !== undefined; effect = this.#queue.shift()) this.#doOne(effect);
    } finally {
      this.#draining = false;
    }
    this.#tellSafety();
    this.#setTimer();
  }

  #doOne(effect: Effect): void {
    switch (effect.type) {
      case "connect":
        return this.#connect();
      case "disconnect":
        this.#connection?.close();
        this.#connection = undefined;
        return;
      case "send":
        this.bytesOut += effect.frame.length;
        return this.#connection?.send(effect.frame);
      case "need-token":
        return void this.#askToken();
      case "store": {
        const { document, ticket } = effect;
        const asker = {
          stored: () => this.step({ type: "stored", document, ticket }),
          failed: (error: unknown) => this.step({ type: "store-failed", document, ticket, error }),
        };
        return effect.mayWait ? this.writer.writeLater(effect.writes, asker) : this.writer.write(effect.writes, asker);
      }
      case "post":
        return this.#documents.get(effect.document)?.post(effect.message);
      case "notify":
        return this.#notify(effect.notice);
    }
  }

  #notify(notice: Notice): void {
    if (notice.type === "connection") {
      this.events.emit("status", notice.status);
      for (const document of this.documents) document.tell({ type: "connection" });
      return;
    }
    if (notice.type === "error") {
      return this.error(new ClientError(notice.kind, notice.text, notice.document, { cause: notice.cause }));
    }
    this.#documents.get(notice.document)?.tell(notice);
  }

  #tellSafety(): void {
    const safety = this.safety;
    const text = `${safety.safety} ${safety.unsyncedChanges}`;
    if (text === this.#safety) return;
    this.#safety = text;
    this.events.emit("safety", safety);
  }

  #connect(): void {
    let current: Connection | undefined;
    let begun = false;
    // What a connection tells that is not the present one any more is nobody's business.
    const hear = (event: Event) => {
      if (begun && this.#connection === current) this.step(event);
    };
    try {
      current = this.#options.transport.connect(this.#options.url, {
        opened: () => hear({ type: "connected" }),
        frame: (bytes) => {
          this.bytesIn += bytes.length;
          hear({ type: "frame", bytes });
        },
        text: () => hear({ type: "text" }),
        closed: (code) => hear({ type: "disconnected", code }),
      });
      this.#connection = current;
      begun = true;
    } catch (error) {
      this.error(new ClientError("protocol", "no connection can be made here", undefined, { cause: error }));
      this.step({ type: "disconnected", code: undefined });
    }
  }

  async #askToken(): Promise<void> {
    const { token, clock, user } = this.#options;
    if (typeof token !== "function") return;
    this.#tokenAsked += 1;
    const asked = this.#tokenAsked;
    try {
      const text = await token();
      if (asked !== this.#tokenAsked) return;
      const { subject, expiry } = claims(text);
      this.#userKnown(user ?? subject ?? "");
      // Where the time of day is wrong the token seems to be over: then the server says when it is.
      const leftMs = expiry === undefined ? undefined : expiry * 1_000 - clock.wall();
      const expiresAt = leftMs === undefined || leftMs <= 0 ? undefined : clock.now() + leftMs;
      this.step({ type: "token", token: { text, expiresAt } });
    } catch (error) {
      if (asked === this.#tokenAsked) this.step({ type: "token-failed", error });
    }
  }

  #setTimer(): void {
    const at = this.#closed ? undefined : this.core.nextWakeup;
    if (at === this.#timerAt) return;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#timerAt = at;
    if (at === undefined) return;
    this.#cancelTimer = this.#options.clock.after(Math.max(0, at - this.now), () => {
      this.#timerAt = undefined;
      this.step({ type: "wake" });
    });
  }
}

/** A server is known by its address alone: what an app puts behind it, or a name in it, may be another the next time. */
function scopeOf(url: string): string {
  const { protocol, host, pathname } = new URL(url);
  return encodeURIComponent(`${protocol}//${host}${pathname}`);
}
