/** automerge-repo's clients and native ones on the same documents: edits, presence, signals. */
import { Presence, type DocHandle, type DocHandleEphemeralMessagePayload } from "@automerge/automerge-repo";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Client, type DocHandle as NativeHandle } from "../../typescript/src/index.js";
import { nodeTransport } from "../../typescript/src/node/index.js";
import { Peers, until, type Notes } from "./peers.js";
import { TestServer } from "./server.js";

let server: TestServer;
let peers: Peers;
let native: Client;

beforeEach(async () => {
  server = await TestServer.start();
  peers = new Peers();
  native = new Client({ url: server.url.replace("ws:", "http:").replace("/sync", ""), transport: nodeTransport() });
});

afterEach(async () => {
  await native.close();
  await peers.close();
  await server.remove();
});

async function both(): Promise<[DocHandle<Notes>, NativeHandle<Notes>]> {
  const mine = peers.open(server.url).create<Notes>({ items: {} });
  const his = native.open<Notes>(mine.documentId);
  await his.whenReady();
  await until(() => his.doc().items !== undefined, "the native client has the document");
  return [mine, his];
}

test("d4 edits go both ways, also those of a time without the server", async () => {
  const [mine, his] = await both();
  his.change((notes) => (notes.items["native"] = "1"));
  await until(() => mine.doc().items["native"] === "1", "ada sees what the native client writes");
  await server.end("SIGTERM");
  mine.change((notes) => (notes.items["ada"] = "offline"));
  his.change((notes) => (notes.items["native"] = "offline"));
  await server.run();
  const all = { ada: "offline", native: "offline" };
  await until(() => JSON.stringify(sorted(mine.doc().items)) === JSON.stringify(all), "ada has both");
  await until(() => JSON.stringify(sorted(his.doc().items)) === JSON.stringify(all), "the native client has both");
  await his.whenDurable();
});

test("a26 a27 their presence helper and a native client see each other come, change and go", async () => {
  const [mine, his] = await both();
  const presence = new Presence<{ cursor: number }>({ handle: mine });
  const seen = (): unknown[] => Object.values(presence.getPeerStates().value).map((peer) => peer.value);
  const shown = (): unknown[] => [...his.presence.others.values()].map((other) => other.state);
  his.presence.set({ cursor: 1, who: "native" });
  presence.start({ initialState: { cursor: 2 } });
  await until(() => JSON.stringify(seen()) === '[{"cursor":1,"who":"native"}]', "ada sees the native client");
  await until(() => JSON.stringify(shown()) === '[{"cursor":2}]', "the native client sees ada");
  expect(Object.keys(presence.getPeerStates().value)).toEqual([`native-${native.session}`]);
  presence.broadcast("cursor", 3);
  his.presence.set({ cursor: 4 });
  await until(() => JSON.stringify(shown()) === '[{"cursor":3}]', "the native client sees ada move");
  await until(() => JSON.stringify(seen()).startsWith('[{"cursor":4'), "ada sees the native client move");
  his.presence.set(undefined);
  await until(() => seen().length === 0, "ada sees the native client go");
  presence.stop();
  await until(() => shown().length === 0, "the native client sees ada go");
});

test("a18 a25 signals and ephemeral messages carry the same values", async () => {
  const [mine, his] = await both();
  const heard: unknown[] = [];
  mine.on("ephemeral-message", ({ senderId, message }: DocHandleEphemeralMessagePayload<Notes>) => heard.push([senderId, message]));
  his.on("signal", ({ payload }) => heard.push(payload));
  mine.broadcast({ wave: [1, -2.5, null, "x"] });
  await until(() => heard.length === 1, "the native client hears ada");
  his.signal({ wave: [1, -2.5, null, "x"] });
  await until(() => heard.length === 2, "ada hears the native client");
  expect(heard).toEqual([{ wave: [1, -2.5, null, "x"] }, [`native-${native.session}`, { wave: [1, -2.5, null, "x"] }]]);
});

function sorted(items: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(items).sort());
}
