/**
 * Frames over the `ws` package: for Node before version 22, and wherever an app wants to set its headers or certificates. The
 * package is looked for when it is wanted, so that the rest of `./node` works without it.
 */
import { createRequire } from "node:module";
import type { Transport } from "../transport/transport.js";
import { webSocketTransport, type SocketLike } from "../transport/websocket.js";

/** What `ws` takes beside the address: these, and whatever else its documentation names. */
export interface NodeTransportOptions {
  /** Sent with the request that opens the connection. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Certificates of authorities, as PEM, in the place of Node's own. */
  readonly ca?: string | Uint8Array | ReadonlyArray<string | Uint8Array>;
  /** The own certificate, and its key. */
  readonly cert?: string | Uint8Array;
  readonly key?: string | Uint8Array;
  /** How long opening may take, in milliseconds. */
  readonly handshakeTimeout?: number;
  readonly [option: string]: unknown;
}

/** Connects with `ws`; `options` are its own. Throws where the package is not installed. */
export function nodeTransport(options: NodeTransportOptions = {}): Transport {
  const { WebSocket } = findPackage();
  return webSocketTransport((url, subprotocol) => new WebSocket(url, subprotocol, { perMessageDeflate: false, ...options }));
}

interface Package {
  readonly WebSocket: new (url: string, subprotocol: string, options: object) => SocketLike;
}

function findPackage(): Package {
  try {
    return createRequire(import.meta.url)("ws") as Package;
  } catch (cause) {
    throw new Error("nodeTransport() needs the package ws: npm install ws", { cause });
  }
}
