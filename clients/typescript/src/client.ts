/** The client: one connection for all documents. */
import type { DocHandle } from "./handle.js";
import type { ClientEvents, ConnectionStatus, Figures, Safety } from "./status.js";
import type { Storage } from "./storage/storage.js";
import type { Tabs } from "./tabs/tabs.js";
import type { Transport } from "./transport/transport.js";

/** How a client is made. */
export interface ClientOptions {
  /** Where the server is: `https://host` or `wss://host`; `/sync` is added where there is no path. */
  readonly url: string;
  /** A JWT, or how to get one: asked anew for every attempt and before it expires. None for a server in development mode. */
  readonly token?: string | (() => Promise<string>);
  /** Where documents and unsent changes are kept. Default: in memory. */
  readonly storage?: Storage;
  /** How the pages of this origin find each other. Default: they do not. */
  readonly tabs?: Tabs;
  readonly transport?: Transport;
  /** Whose changes these are. Default: the `sub` of the token. */
  readonly user?: string;
  /** How long local changes are gathered before they are sent, in milliseconds. Default 50. */
  readonly groupMs?: number;
  /** Begins offline. Default false. */
  readonly offline?: boolean;
}

/** One connection and its documents. */
export interface ClientShape {
  readonly status: ConnectionStatus;
  /** The server's name for this connection while connected. */
  readonly session: number | undefined;
  readonly safety: Safety;
  readonly unsyncedChanges: number;
  readonly figures: Figures;
  whenDurable(): Promise<void>;
  open<T>(documentId: string, options?: OpenOptions<T>): DocHandle<T>;
  goOffline(): void;
  goOnline(): void;
  /** Asks before the page is left while changes are not durable. The function that comes back ends that. */
  guardUnload(): () => void;
  /** Sends what another user has left in this storage as this user's. */
  adoptQueues(): Promise<void>;
  on<Name extends keyof ClientEvents>(event: Name, handler: (value: ClientEvents[Name]) => void): () => void;
  off<Name extends keyof ClientEvents>(event: Name, handler: (value: ClientEvents[Name]) => void): void;
  close(): Promise<void>;
}

/** How a document is opened. */
export interface OpenOptions<T> {
  /** How an empty document begins: the same from every client, so that two first visitors share one start. */
  readonly initial?: T;
}
