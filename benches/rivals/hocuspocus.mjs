/** Hocuspocus with its SQLite extension, and its own provider. */
import { join } from "node:path";
import { HocuspocusProvider, HocuspocusProviderWebsocket } from "@hocuspocus/provider";
import { WebSocket } from "ws";
import * as Y from "yjs";
import { installed } from "./installed.mjs";
import { editsOf } from "./yjs-edits.mjs";

const DOCUMENT = "compare-durability";

export const name = "Hocuspocus";

export function versions() {
  return installed("@hocuspocus/server", "@hocuspocus/extension-sqlite", "better-sqlite3", "@hocuspocus/provider", "yjs");
}

export function command(port, directory) {
  const main = new URL("./hocuspocus-server.mjs", import.meta.url).pathname;
  return { file: process.execPath, args: [main, String(port), join(directory, "hocuspocus.sqlite")] };
}

export async function open(port, _document, seen) {
  const document = new Y.Doc();
  const socket = new HocuspocusProviderWebsocket({ url: `ws://127.0.0.1:${port}`, WebSocketPolyfill: WebSocket });
  const provider = new HocuspocusProvider({ websocketProvider: socket, name: DOCUMENT, document });
  const synced = new Promise((resolve) => provider.on("synced", resolve));
  provider.attach();
  await synced;
  const close = () => {
    provider.destroy();
    socket.destroy();
  };
  return { document: DOCUMENT, ...editsOf(document, seen), close };
}
