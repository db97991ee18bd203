import { WebSocket } from "ws";
import { nodeTransport } from "../../src/node/transport.js";
import { webSocketTransport, type SocketLike } from "../../src/transport/websocket.js";
import { transportContract } from "./contract.js";

transportContract("ws in Node", () => nodeTransport());

// With the parts of a browser's WebSocket alone.
transportContract("a WebSocket", () => webSocketTransport((url, protocol) => new WebSocket(url, protocol) as unknown as SocketLike));
