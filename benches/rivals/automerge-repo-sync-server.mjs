/** automerge-repo's sync server, and automerge-repo as its client, without a storage. */
import { setTimeout as sleep } from "node:timers/promises";
import { Repo } from "@automerge/automerge-repo";
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket";
import { installed, fileOf } from "./installed.mjs";

const PACKAGE = "@automerge/automerge-repo-sync-server";
/** A WebSocket's `readyState`. */
const OPEN = 1;
/** How long a client asks for a document that the server says it does not have. */
const ASKS_MS = 10_000;

/** As it is, but for a server that is gone: it would throw then, past everybody who could catch it. */
class Adapter extends WebSocketClientAdapter {
  onError = () => {};

  send(message) {
    if (this.socket?.readyState === OPEN) super.send(message);
  }
}

export const name = "automerge-repo-sync-server";

export function versions() {
  return installed(PACKAGE, `${PACKAGE}/node_modules/@automerge/automerge-repo`, "@automerge/automerge-repo");
}

export function command(port, directory) {
  const loopback = new URL("./loopback.mjs", import.meta.url).href;
  const env = { PORT: String(port), DATA_DIR: `${directory}/data` };
  return { file: process.execPath, args: ["--import", loopback, fileOf(PACKAGE, "src/index.js")], env };
}

/** The first to open makes the document; its URL is the document for the others. */
export async function open(port, document, seen) {
  const network = new Adapter(`ws://127.0.0.1:${port}`, 200);
  const repo = new Repo({ network: [network] });
  await new Promise((resolve) => network.once("peer-candidate", resolve));
  const handle = document === undefined ? repo.create({ edits: {} }) : await find(repo, document);
  handle?.on("change", ({ patches }) => {
    for (const { path } of patches) if (path[0] === "edits" && path.length > 1) seen(String(path[1]));
  });
  return {
    document: handle?.url,
    write: (key) => handle.change((doc) => void (doc.edits[key] = 1)),
    keys: () => Object.keys(handle?.doc()?.edits ?? {}),
    close: () => repo.networkSubsystem.disconnect(),
  };
}

/** Undefined when the server does not have it. */
async function find(repo, document) {
  for (const deadline = Date.now() + ASKS_MS; Date.now() < deadline; await sleep(200)) {
    const handle = await repo.find(document).catch(() => undefined);
    if (handle !== undefined) return handle;
  }
  return undefined;
}
