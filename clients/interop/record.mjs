/**
 * Records what the published packages send each other into protocol/vectors/repo.json: `node record.mjs`.
 * Run it again for a new version of the packages, and look at what changed.
 */
import { Repo, cbor } from "@automerge/automerge-repo";
import { WebSocketClientAdapter, WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket";
import { readFileSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { WebSocket, WebSocketServer } from "ws";

const STORAGE = { server: "b8a1c4de-0b0b-4b0e-8f6c-6f3a5a1f2c77", client: "0d3c7c5e-7a52-4a5e-9d5e-2b7c2f9d9a11" };
const recorded = [];

/** Remembers one frame, each kind and sender a few times at most. */
function record(from, bytes, note = "") {
  const message = cbor.decode(bytes);
  const alike = recorded.filter((one) => one.message.type === message.type && one.from === from);
  if (note !== "" || alike.length < 3) recorded.push({ name: `${message.type}${note}`, from, message: plain(message), hex: hex(bytes) });
}

const hex = (bytes) => Buffer.from(bytes).toString("hex");

/** The message as JSON: byte strings in hexadecimal, absent fields as null. */
function plain(value) {
  if (value instanceof Uint8Array) return hex(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "bigint") return Number(value);
  if (value === undefined) return null;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
}

/** Storage that remembers nothing but who it is. */
const storage = (id) => {
  const kept = new Map([["storage-adapter-id", new TextEncoder().encode(id)]]);
  return {
    load: async (key) => kept.get(key.join()),
    save: async (key, value) => void kept.set(key.join(), value),
    remove: async (key) => void kept.delete(key.join()),
    loadRange: async () => [],
    removeRange: async () => {},
  };
};

const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
await once(server, "listening");
server.on("connection", (socket) => {
  socket.on("message", (bytes) => record("client", bytes));
  const send = socket.send.bind(socket);
  socket.send = (bytes, ...rest) => {
    record("server", new Uint8Array(bytes));
    return send(bytes, ...rest);
  };
});
new Repo({
  network: [new WebSocketServerAdapter(server)],
  peerId: "storage-server",
  storage: storage(STORAGE.server),
  sharePolicy: async () => false,
  enableRemoteHeadsGossiping: true,
});
const url = `ws://127.0.0.1:${server.address().port}`;
const open = (peerId, config = {}) => new Repo({ network: [new WebSocketClientAdapter(url)], peerId, ...config });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const ada = open("ada", { storage: storage(STORAGE.client), enableRemoteHeadsGossiping: true });
const bob = open("bob", { enableRemoteHeadsGossiping: true });
bob.subscribeToRemotes([STORAGE.client]);
await pause(300);
const mine = ada.create({ title: "vectors" });
await pause(500);
const his = await bob.find(mine.url);
his.change((document) => (document.title = "recorded"));
await pause(500);
mine.change((document) => (document.title = "twice"));
mine.broadcast({ cursor: 7 });
await pause(500);
await bob.find("automerge:2j9knpCseyhnK8izDmLpGP5WMdZQ").catch(() => {});
await pause(300);

const stranger = new WebSocket(url);
await once(stranger, "open");
stranger.send(
  cbor.encode({ type: "join", senderId: "stranger", peerMetadata: {}, supportedProtocolVersions: ["2"] }),
);
await once(stranger, "close");
const large = { type: "ephemeral", senderId: "ada", targetId: "bob", count: 2 ** 40 + 1, sessionId: "s", documentId: "d" };
record("client", cbor.encode({ ...large, data: new Uint8Array([0xf6]) }), " with a count beyond 32 bits");
record("client", cbor.encode({ ...large, count: 1n << 40n, data: new Uint8Array([0xf6]) }), " with a count in 64 bits");

const { version } = JSON.parse(readFileSync(new URL("../node_modules/@automerge/automerge-repo/package.json", import.meta.url)));
const lines = recorded.map((one) => `  ${JSON.stringify(one)}`).join(",\n");
writeFileSync(new URL("../../protocol/vectors/repo.json", import.meta.url), `[\n${lines}\n]\n`);
console.log(`${recorded.length} messages of version ${version}`);
process.exit(0);
