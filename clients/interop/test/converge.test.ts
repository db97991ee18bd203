/** Two and three clients on one document: both ways, late, offline, over restarts. */
import type { AutomergeUrl, PeerId } from "@automerge/automerge-repo";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Peers, VERSIONS, findSoon, until, type Notes } from "./peers.js";
import { OfficialServer, TestServer } from "./server.js";

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

describe.each(VERSIONS)("a client of version %s", (version) => {
  test("converges with another, both ways, and a third that joins late", async () => {
    const ada = peers.openVersion(version, server.url);
    const bob = peers.openVersion(version, server.url);
    const mine = ada.create<Notes>({ items: {} });
    mine.change((notes) => (notes.title = "shared"));
    const his = await findSoon<Notes>(bob, mine.url);
    expect(his.doc().title).toBe("shared");
    his.change((notes) => (notes.items["bob"] = "was here"));
    mine.change((notes) => (notes.items["ada"] = "too"));
    await until(() => mine.doc().items["bob"] === "was here", "ada sees bob's edit");
    await until(() => his.doc().items["ada"] === "too", "bob sees ada's edit");

    const late = await findSoon<Notes>(peers.openVersion(version, server.url), mine.url);
    expect(late.doc().items).toEqual({ ada: "too", bob: "was here" });
    late.change((notes) => (notes.items["eve"] = "late"));
    await until(() => mine.doc().items["eve"] === "late", "ada sees the late one's edit");
  });
});

test("clients of two versions share a document", async () => {
  const older = peers.openVersion("2.0.8", server.url);
  const newer = peers.openVersion("2.5.6", server.url);
  const one = older.create<Notes>({ items: { older: "1" } });
  const other = await findSoon<Notes>(newer, one.url);
  other.change((notes) => (notes.items["newer"] = "2"));
  await until(() => one.doc().items["newer"] === "2", "the older one sees the newer one's edit");
});

test("a8 find of a document that nobody has fails as it does with their own server", async () => {
  const official = await OfficialServer.start();
  try {
    const reasons = [];
    for (const url of [official.url, server.url]) {
      const find = peers.open(url).find("automerge:2j9knpCseyhnK8izDmLpGP5WMdZQ" as AutomergeUrl);
      reasons.push(await find.then(String, (error: Error) => `${error.name}: ${error.message}`));
    }
    expect(reasons[0]).toContain("unavailable");
    expect(reasons[1]).toBe(reasons[0]);
  } finally {
    await official.remove();
  }
});

test("a6 a second socket with one peer id takes the first one's place", async () => {
  const peerId = "one-tab" as PeerId;
  const never = 1_000_000;
  const first = peers.open(server.url, { peerId }, never);
  const mine = first.create<Notes>({ items: {} });
  const his = await findSoon<Notes>(peers.open(server.url), mine.url);
  let ended = false;
  first.networkSubsystem.on("peer-disconnected", () => (ended = true));
  const second = await findSoon<Notes>(peers.open(server.url, { peerId }), mine.url);
  await until(() => ended, "the first one's connection ends");
  second.change((notes) => (notes.items["second"] = "1"));
  await until(() => his.doc().items["second"] === "1", "bob sees what the second one writes");
  his.change((notes) => (notes.items["bob"] = "2"));
  await until(() => second.doc().items["bob"] === "2", "the second one sees what bob writes");
  expect(mine.doc().items).toEqual({});
});

test("a document that nobody has is unavailable, and is there once somebody makes it", async () => {
  const ada = peers.open(server.url);
  const mine = ada.create<Notes>({ items: {} });
  const bob = peers.open(server.url);
  await expect(bob.find("automerge:2j9knpCseyhnK8izDmLpGP5WMdZQ" as AutomergeUrl)).rejects.toThrow(/unavailable/);
  const his = await findSoon<Notes>(bob, mine.url);
  expect(his.doc().items).toEqual({});
});

test("a16 edits of both sides come together after the server was killed and started again", async () => {
  const ada = peers.open(server.url);
  const bob = peers.open(server.url);
  const mine = ada.create<Notes>({ items: {} });
  const his = await findSoon<Notes>(bob, mine.url);
  mine.change((notes) => (notes.items["before"] = "1"));
  await until(() => his.doc().items["before"] === "1", "bob has the first edit");
  await server.end("SIGKILL");
  mine.change((notes) => (notes.items["ada"] = "offline"));
  his.change((notes) => (notes.items["bob"] = "offline"));
  await server.run();
  await until(() => mine.doc().items["bob"] === "offline", "ada sees what bob wrote offline");
  await until(() => his.doc().items["ada"] === "offline", "bob sees what ada wrote offline");
  const late = await findSoon<Notes>(peers.open(server.url), mine.url);
  expect(late.doc().items).toEqual({ before: "1", ada: "offline", bob: "offline" });
});
