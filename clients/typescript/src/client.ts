/** The client: one connection for all documents. */
import { initialChange } from "./core/initial.js";
import type { ClientLimits } from "./core/config.js";
import { DocHandle } from "./handle.js";
import { systemClock, type Clock } from "./shell/clock.js";
import { Shell } from "./shell/shell.js";
import { ChangeError, type ClientEvents, type ConnectionStatus, type Figures, type Safety } from "./status.js";
import { memoryStorage } from "./storage/memory.js";
import type { Storage } from "./storage/storage.js";
import type { Tabs } from "./tabs/tabs.js";
import type { Transport } from "./transport/transport.js";
import { webSocketTransport } from "./transport/websocket.js";
import { isDocumentId } from "./wire/messages.js";

/** How a client is made. */
export interface ClientOptions {
  /** Where the server is: `https://host` or `wss://host`; `/sync` is added where there is no path. */
  readonly url: string;
  /** A JWT, or how to get one: asked anew for every attempt and before it expires. None for a server in development mode. */
  readonly token?: string | (() => Promise<string>) | undefined;
  /** Where documents and unsent changes are kept. Default: in memory. */
  readonly storage?: Storage | undefined;
  /** How the pages of this origin find each other; what shares a storage has to share this. Default: they do not. */
  readonly tabs?: Tabs | undefined;
  readonly transport?: Transport | undefined;
  /** Whose changes these are. Default: the `sub` of the token. */
  readonly user?: string | undefined;
  /** How long local changes, which are stored at once, are gathered before they are sent, in milliseconds. Default 50. */
  readonly groupMs?: number | undefined;
  /** Begins offline. Default false. */
  readonly offline?: boolean | undefined;
  /** Sizes and times, for those who know what they do. */
  readonly limits?: Partial<ClientLimits> | undefined;
}

/** How a document is opened. */
export interface OpenOptions<T> {
  /** How an empty document begins: the same from every client, so that two first visitors share one start. */
  readonly initial?: T | undefined;
}

/** What tests put in the place of the world. */
export interface World {
  readonly clock: Clock;
  /** At least 12 random bytes. */
  readonly seed: Uint8Array;
}

/** One connection and its documents. */
export class Client {
  readonly #shell: Shell;
  readonly #storage: Storage;
  readonly #unlisten: Array<() => void> = [];

  constructor(options: ClientOptions, world?: World) {
    this.#storage = options.storage ?? memoryStorage();
    this.#shell = new Shell({
      url: socketUrl(options.url),
      token: options.token,
      storage: this.#storage,
      tabs: options.tabs,
      transport: options.transport ?? webSocketTransport(),
      user: options.user,
      groupMs: options.groupMs ?? 50,
      offline: options.offline ?? false,
      limits: options.limits ?? {},
      clock: world?.clock ?? systemClock,
      seed: world?.seed ?? crypto.getRandomValues(new Uint8Array(32)),
    });
    this.#listen();
  }

  get status(): ConnectionStatus {
    return this.#shell.core.status;
  }

  /** The server's name for this connection while connected. */
  get session(): number | undefined {
    return this.#shell.core.session;
  }

  /** Over all open documents. */
  get safety(): Safety {
    return this.#shell.safety.safety;
  }

  get unsyncedChanges(): number {
    return this.#shell.safety.unsyncedChanges;
  }

  get figures(): Figures {
    const { bytesIn, bytesOut, core } = this.#shell;
    return { bytesIn, bytesOut, roundTripMs: core.roundTripMs };
  }

  /** Resolves when all changes made so far, in all open documents, are on the server's disk. */
  async whenDurable(): Promise<void> {
    const handles = this.#shell.documents.map((document) => new DocHandle(this.#shell, document));
    try {
      await Promise.all(handles.map((handle) => handle.whenDurable()));
    } finally {
      await Promise.all(handles.map((handle) => handle.close()));
    }
  }

  /** Opens a document. Opening it again gives another handle of the same document. Throws a `ChangeError` once the client is closed. */
  open<T>(documentId: string, options: OpenOptions<T> = {}): DocHandle<T> {
    if (!isDocumentId(documentId)) throw new RangeError(`${JSON.stringify(documentId)} is not a document id`);
    if (this.#shell.isClosed) throw new ChangeError("closed", "the client is closed");
    const initial = options.initial === undefined ? undefined : initialChange(options.initial as object);
    return new DocHandle<T>(this.#shell, this.#shell.open(documentId, initial));
  }

  /** Closes the connection until `goOnline`. Everything else goes on. */
  goOffline(): void {
    this.#shell.goOffline();
  }

  /** Connects, now rather than later; also after a final rejection. */
  goOnline(): void {
    this.#shell.goOnline();
  }

  /** Asks before the page is left while changes are not durable. The function that comes back ends that. */
  guardUnload(): () => void {
    const guard = (event: BeforeUnloadEvent) => {
      if (this.unsyncedChanges > 0) event.preventDefault();
    };
    globalThis.addEventListener("beforeunload", guard);
    return () => globalThis.removeEventListener("beforeunload", guard);
  }

  /** Sends what another user has left unsent in this storage as this user's. */
  async adoptQueues(): Promise<void> {
    for (const document of this.#shell.documents) await document.adoptAll();
  }

  on<Name extends keyof ClientEvents>(event: Name, handler: (value: ClientEvents[Name]) => void): () => void {
    return this.#shell.events.on(event, handler);
  }

  off<Name extends keyof ClientEvents>(event: Name, handler: (value: ClientEvents[Name]) => void): void {
    this.#shell.events.off(event, handler);
  }

  /** Stores everything, leaves all rooms and lets go of the storage. */
  async close(): Promise<void> {
    for (const unlisten of this.#unlisten) unlisten();
    this.#shell.isClosed = true;
    await Promise.all(this.#shell.documents.map((document) => document.end()));
    await this.#shell.close();
    await this.#storage.close();
  }

  /** A page may be gone at any moment after it was hidden; and a network that is back is used at once. */
  #listen(): void {
    if (typeof document === "undefined") return;
    const on = (target: EventTarget, event: string, handler: () => void) => {
      target.addEventListener(event, handler);
      this.#unlisten.push(() => target.removeEventListener(event, handler));
    };
    on(document, "visibilitychange", () => this.#shell.flush());
    on(globalThis, "pagehide", () => this.#shell.flush());
    on(globalThis, "online", () => this.#shell.networkIsBack());
  }
}

function socketUrl(given: string): string {
  const url = new URL(given);
  url.protocol = url.protocol.replace(/^http/, "ws");
  if (url.pathname === "/") url.pathname = "/sync";
  return url.href;
}
