/** Frames over the `ws` package: for Node before version 22, and wherever an app wants to set its headers or certificates. */
import { WebSocket, type ClientOptions } from "ws";
import type { Transport } from "../transport/transport.js";
import { webSocketTransport, type SocketLike } from "../transport/websocket.js";

/** Connects with `ws`; `options` are its own. */
export function nodeTransport(options: ClientOptions = {}): Transport {
  return webSocketTransport((url, subprotocol) => {
    return new WebSocket(url, subprotocol, { perMessageDeflate: false, ...options }) as unknown as SocketLike;
  });
}
