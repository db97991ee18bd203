/** The one place that knows of a server. A token, where the server asks for one, goes behind the URL: `?token=...`. */
import { Repo } from "@automerge/automerge-repo";
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket";
import { IndexedDBStorageAdapter } from "@automerge/automerge-repo-storage-indexeddb";

const SYNCLINE = new URLSearchParams(location.search).get("server") ?? "ws://127.0.0.1:4400/sync";

export const repo = new Repo({
  network: [new WebSocketClientAdapter(SYNCLINE)],
  storage: new IndexedDBStorageAdapter(),
});
