/** Yjs's own server with its LevelDB persistence, and its own provider. */
import { join } from "node:path";
import { WebSocket } from "ws";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";
import { installed, fileOf } from "./installed.mjs";
import { editsOf } from "./yjs-edits.mjs";

const DOCUMENT = "compare-durability";

export const name = "@y/websocket-server";

export function versions() {
  return installed("@y/websocket-server", "y-leveldb", "y-websocket", "yjs");
}

export function command(port, directory) {
  const env = { HOST: "127.0.0.1", PORT: String(port), YPERSISTENCE: join(directory, "leveldb") };
  return { file: process.execPath, args: [fileOf("@y/websocket-server", "src/server.js")], env };
}

export async function open(port, _document, seen) {
  const document = new Y.Doc();
  // Without `disableBc` clients in one process would also reach each other past the server.
  const options = { disableBc: true, WebSocketPolyfill: WebSocket };
  const provider = new WebsocketProvider(`ws://127.0.0.1:${port}`, DOCUMENT, document, options);
  await new Promise((resolve) => provider.on("sync", (is) => is && resolve()));
  return { document: DOCUMENT, ...editsOf(document, seen), close: () => provider.destroy() };
}
