/** What apps rely on besides convergence: ephemeral messages, presence, remote heads, many documents, imports. */
import { Presence, type DocHandle, type Repo, type StorageId } from "@automerge/automerge-repo";
import * as Automerge from "@automerge/automerge";
import { execFile, spawn } from "node:child_process";
import { afterEach, beforeEach, expect, test } from "vitest";
import { BINARY, TestServer } from "./server.js";
import { CountingAdapter, Peers, VERSIONS, findSoon, until, type Notes } from "./peers.js";
import { memory } from "./storage.js";

let server: TestServer;
let peers: Peers;

beforeEach(async () => {
  server = await TestServer.start();
  peers = new Peers();
});

afterEach(async () => {
  await peers.close();
  await server.remove();
});

test("an ephemeral message reaches the others once, with its sender, and never its sender", async () => {
  const [ada, bob, eve] = [peers.open(server.url), peers.open(server.url), peers.open(server.url)];
  const mine = ada.create<Notes>({ items: {} });
  const heard: { who: string; from: string; message: unknown }[] = [];
  const listen = (who: string, handle: typeof mine) =>
    handle.on("ephemeral-message", ({ senderId, message }) => heard.push({ who, from: senderId, message }));
  listen("ada", mine);
  listen("bob", await findSoon<Notes>(bob, mine.url));
  listen("eve", await findSoon<Notes>(eve, mine.url));
  mine.broadcast({ cursor: 7 });
  await until(() => heard.length >= 2, "both others hear it");
  mine.broadcast("and more");
  await until(() => heard.length >= 4, "both others hear the next");
  const from = ada.networkSubsystem.peerId;
  expect(heard.filter((one) => one.who === "ada")).toEqual([]);
  for (const who of ["bob", "eve"]) {
    expect(heard.filter((one) => one.who === who)).toEqual([
      { who, from, message: { cursor: 7 } },
      { who, from, message: "and more" },
    ]);
  }
});

test("their presence helper sees the other peer come, change and go", async () => {
  const [ada, bob] = [peers.open(server.url), peers.open(server.url)];
  const mine = ada.create<Notes>({ items: {} });
  const his = await findSoon<Notes>(bob, mine.url);
  const [one, other] = [new Presence({ handle: mine }), new Presence({ handle: his })];
  one.start({ initialState: { cursor: 1 } });
  other.start({ initialState: { cursor: 2 } });
  const seen = () => JSON.stringify(one.getPeerStates());
  await until(() => seen().includes('"cursor":2'), "ada sees bob's state");
  other.broadcast("cursor", 3);
  await until(() => seen().includes('"cursor":3'), "ada sees it change");
  let gone = false;
  one.on("goodbye", () => (gone = true));
  other.stop();
  await until(() => gone, "ada sees bob go");
  one.stop();
});

test("a peer that follows another's storage hears how far it is", async () => {
  const storage = "0d3c7c5e-7a52-4a5e-9d5e-2b7c2f9d9a11" as StorageId;
  const ada = peers.open(server.url, { storage: memory(storage), enableRemoteHeadsGossiping: true });
  const bob = peers.open(server.url, { enableRemoteHeadsGossiping: true });
  const mine = ada.create<Notes>({ items: {} });
  bob.subscribeToRemotes([storage]);
  const his = await findSoon<Notes>(bob, mine.url);
  mine.change((notes) => (notes.title = "far"));
  await until(() => his.getSyncInfo(storage)?.lastHeads.join() === mine.heads().join(), "bob hears of ada's heads");
});

test("a client knows when the server has what it wrote", async () => {
  const ada = peers.open(server.url);
  const mine = ada.create<Notes>({ items: {} });
  mine.change((notes) => (notes.title = "kept"));
  await isKept(ada, mine);
});

/** Waits until the server has said that it has all that this client has. */
async function isKept(repo: Repo, handle: DocHandle<Notes>): Promise<void> {
  await until(() => Object.keys(repo.peerMetadataByPeerId).length === 1, "the client knows the server");
  const storage = Object.values(repo.peerMetadataByPeerId)[0]?.storageId;
  if (storage === undefined) throw new Error("the server names its storage");
  await until(() => handle.getSyncInfo(storage)?.lastHeads.join() === handle.heads().join(), "the server has it");
}

test("fifty documents at once", async () => {
  const [ada, bob] = [peers.open(server.url), peers.open(server.url)];
  const mine = Array.from({ length: 50 }, (_, number) => ada.create<Notes>({ items: { number: String(number) } }));
  const his = await Promise.all(mine.map((handle) => findSoon<Notes>(bob, handle.url)));
  his.forEach((handle, number) => handle.change((notes) => (notes.items["bob"] = String(number))));
  await until(() => mine.every((handle, number) => handle.doc().items["bob"] === String(number)), "all come back");
});

/** Changes of a few actors, one for each letter. */
function typed(changes: number): Automerge.Doc<Notes> {
  let document = Automerge.from<Notes & Record<string, unknown>>({ items: {}, text: "" });
  for (let number = 0; number < changes; number += 1) {
    if (number % 500 === 0) document = Automerge.clone(document);
    document = Automerge.change(document, (notes) => Automerge.splice(notes, ["text"], 0, 0, "x"));
  }
  return document;
}

test("a12 who joins right after an import gets the document in about as many bytes as it has saved", async () => {
  const saved = Automerge.save(typed(3_000));
  const ada = peers.open(server.url);
  const mine = ada.import<Notes>(saved);
  await isKept(ada, mine);
  const few = 2 * saved.byteLength + 2_000;
  let bytes = Infinity;
  // A machine that takes longer than anybody waits has it for the next one.
  for (let newcomer = 0; newcomer < 3 && bytes >= few; newcomer += 1) {
    const counting = new CountingAdapter(server.url);
    const his = await findSoon<Notes>(peers.openOn(counting), mine.url);
    await until(() => his.doc().text?.length === 3_000, "the newcomer has all of it");
    bytes = counting.bytesIn;
  }
  expect(bytes).toBeLessThan(few);
});

test("an import of many changes, some of actors that the server has not seen, arrives whole", async () => {
  const imported = typed(3_000);
  const ada = peers.open(server.url);
  const mine = ada.import<Notes>(Automerge.save(imported));
  const his = await findSoon<Notes>(peers.open(server.url), mine.url);
  await until(() => his.doc().text?.length === 3_000, "bob has all of it");
  expect(his.heads()).toEqual(mine.heads());
});

test("edits on an old state of a long document, and those of a replica that was away for long, reach the others", async () => {
  let long = Automerge.from<Notes & Record<string, unknown>>({ items: {} });
  let [old, away] = [Automerge.getHeads(long), long];
  for (let number = 0; number < 11_000; number += 1) {
    if (number === 50) away = Automerge.clone(long);
    if (number === 5_000) old = Automerge.getHeads(long);
    long = Automerge.change(long, (notes) => (notes["number"] = number));
  }
  const ada = peers.open(server.url);
  const mine = ada.import<Notes>(Automerge.save(long));
  await isKept(ada, mine);
  const his = await findSoon<Notes>(peers.open(server.url), mine.url);
  await until(() => his.heads().join() === mine.heads().join(), "bob has all of it");
  for (const key of ["one", "two"]) {
    mine.update((notes) => Automerge.changeAt(notes, old, (notes) => (notes.items[key] = "late")).newDoc);
  }
  away = Automerge.change(away, (notes) => (notes.items["away"] = "late"));
  mine.update((notes) => Automerge.merge(notes, away));
  await until(() => Object.keys(his.doc().items).length === 3, "bob sees what ada wrote on old states");
  expect(his.doc().items).toEqual({ one: "late", two: "late", away: "late" });
});

test("a document of 260,000 operations goes to clients of both versions, who go on writing", async () => {
  let imported = Automerge.from<Notes & Record<string, unknown>>({ items: {}, text: "" });
  for (let number = 0; number < 260; number += 1) {
    imported = Automerge.change(imported, (notes) => Automerge.splice(notes, ["text"], number, 0, "x".repeat(1_000)));
  }
  const mine = peers.open(server.url).import<Notes>(Automerge.save(imported));
  for (const version of VERSIONS) {
    const his = await findSoon<Notes>(peers.openVersion(version, server.url), mine.url);
    await until(() => his.doc().text?.length === 260_000, `${version} has all of it`);
    his.change((notes) => (notes.items[version] = "was here"));
    await until(() => mine.doc().items[version] === "was here", `ada sees what ${version} wrote`);
  }
});

test("a native client watches what an automerge-repo client writes", async () => {
  const ada = peers.open(server.url);
  const mine = ada.create<Notes>({ title: "one", items: {} });
  await findSoon<Notes>(peers.open(server.url), mine.url);
  const watcher = spawn(BINARY, ["watch", server.url.replace("/sync", ""), mine.documentId]);
  let printed = "";
  watcher.stdout.on("data", (piece: Buffer) => (printed += piece.toString()));
  await until(() => printed.includes('"one"'), "the watcher prints the document");
  mine.change((notes) => (notes.title = "two"));
  await until(() => printed.includes('"two"'), "and the change");
  watcher.kill();
});

test("a reader receives, and what he writes stays with him", async () => {
  const secret = "a secret of the tests that is long enough";
  const guarded = await TestServer.start({ SYNCLINE_AUTH_SECRET: secret });
  try {
    const token = (name: string, access: string) =>
      new Promise<string>((resolve, reject) =>
        execFile(
          BINARY,
          ["token", "--sub", name, "--doc", `**=${access}`],
          { env: { SYNCLINE_AUTH_SECRET: secret } },
          (error, out) => (error === null ? resolve(out.trim()) : reject(error)),
        ),
      );
    const ada = peers.open(`${guarded.url}?token=${await token("ada", "write")}`);
    const bob = peers.open(`${guarded.url}?token=${await token("bob", "read")}`);
    const mine = ada.create<Notes>({ items: {} });
    const his = await findSoon<Notes>(bob, mine.url);
    his.change((notes) => (notes.items["bob"] = "not allowed"));
    mine.change((notes) => (notes.items["ada"] = "allowed"));
    await until(() => his.doc().items["ada"] === "allowed", "bob goes on receiving");
    const late = await findSoon<Notes>(peers.open(`${guarded.url}?token=${await token("eve", "read")}`), mine.url);
    await until(() => late.doc().items["ada"] === "allowed", "eve has ada's");
    expect(late.doc().items).toEqual({ ada: "allowed" });
    expect(mine.doc().items).toEqual({ ada: "allowed" });
  } finally {
    await guarded.remove();
  }
});
