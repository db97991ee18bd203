/** One fault at a time, against a whole client in virtual time. */
import * as A from "@automerge/automerge";
import { expect, it } from "vitest";
import type { DocHandle } from "../../src/index.js";
import { MemoryOrigin } from "../../src/tabs/memory.js";
import { Origin, Page, World } from "./world.js";

interface Notes {
  text: string;
}

const initial: Notes = { text: "" };

function open(page: Page): DocHandle<Notes> {
  return page.client.open<Notes>("notes", { initial });
}

const type = (handle: DocHandle<Notes>, text: string) => handle.change((doc) => A.splice(doc, ["text"], doc.text.length, 0, text));

function world(seed = 1): { world: World; origin: Origin } {
  const made = new World(seed);
  const sync = () => {
    made.server.sync();
    made.after(5, sync);
  };
  sync();
  return { world: made, origin: new Origin(made) };
}

function jwt(claims: object): string {
  return `x.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.x`;
}

it("a storage that is full: the app is told, everything is sent, and stored once there is space", async () => {
  const { world: all, origin } = world();
  const page = origin.page();
  const handle = open(page);
  await all.run(1_000);
  origin.full = true;
  type(handle, "unsaved");
  await all.run(1_000);
  expect(page.errors.some((error) => error.startsWith("storage:"))).toBe(true);
  expect(handle.safety).toBe("durable");
  page.client.goOffline();
  type(handle, " and unsent");
  await all.run(1_000);
  origin.full = false;
  await all.run(10_000);
  page.kill();
  const next = open(origin.page({ offline: true }));
  await all.run(1_000);
  expect(next.doc().text).toBe("unsaved and unsent");
  expect(next.unsyncedChanges).toBe(1);
});

it("a clock that is wrong: a token that seems to be over is used until the server says so, not asked for in a loop", async () => {
  const { world: all, origin } = world();
  let asked = 0;
  const token = async () => {
    asked += 1;
    return jwt({ sub: "ada", exp: 1_000_000_000 });
  };
  const page = origin.page({ token });
  const handle = open(page);
  await all.run(60_000);
  expect([page.client.status.state, handle.status.state, asked]).toEqual(["connected", "live", 1]);
});

it("another login: what the former user has left is held, and sent when the app says so", async () => {
  const { world: all, origin } = world();
  const eve = origin.page({ token: jwt({ sub: "eve" }) });
  const hers = open(eve);
  await all.run(1_000);
  eve.client.goOffline();
  type(hers, "eve's");
  await all.run(1_000);
  eve.kill();
  const ada = origin.page({ token: jwt({ sub: "ada" }) });
  const handle = open(ada);
  await all.run(5_000);
  expect(handle.doc().text).toBe("");
  expect(ada.errors.some((error) => error.startsWith("held:"))).toBe(true);
  await Promise.all([ada.client.adoptQueues(), all.run(5_000)]);
  await all.run(5_000);
  expect(handle.doc().text).toBe("eve's");
  expect(handle.safety).toBe("durable");
});

it("pages of one origin share a document live, offline too, and one sends what a page that is gone has left", async () => {
  const { world: all, origin } = world();
  const [one, two] = [origin.page(), origin.page()];
  const [a, b] = [open(one), open(two)];
  await all.run(1_000);
  one.client.goOffline();
  two.client.goOffline();
  type(a, "from one");
  await all.run(200);
  expect(b.doc().text).toBe("from one");
  type(b, ", from two");
  await all.run(200);
  one.kill();
  await all.run(1_000);
  expect(b.unsyncedChanges).toBe(2);
  two.client.goOnline();
  await all.run(5_000);
  expect(b.safety).toBe("durable");
  expect(all.server.document<Notes>("notes").text).toBe("from one, from two");
});

it("a duplicated page, down to its randomness: both go on, and nothing is there twice or not at all", async () => {
  const { world: all, origin } = world();
  const seed = new Uint8Array(32).fill(7);
  const [one, two] = [origin.page({}, seed), new Origin(all).page({}, seed)];
  const [a, b] = [open(one), open(two)];
  await all.run(1_000);
  type(a, "one;");
  type(b, "two;");
  await all.run(10_000);
  expect([a.safety, b.safety]).toEqual(["durable", "durable"]);
  expect([...a.doc().text.split(";")].sort()).toEqual(["", "one", "two"]);
  expect(b.doc()).toEqual(a.doc());
});

it("a page that is gone at any moment after it was typed in: what it has stored reaches the server by the page that is left", async () => {
  let stored = 0;
  for (let round = 0; round < 60; round += 1) {
    const { world: all, origin } = world(round);
    const former = origin.page();
    open(former);
    await all.run(1_000);
    former.kill();
    // The page that dies says nothing before: not even that it keeps the replica.
    const b = open(origin.page());
    await all.run(1_000);
    const one = origin.page();
    const a = open(one);
    await all.run(1_000);
    type(a, "last words");
    await all.run(round % 15);
    const isSafe = a.safety !== "unstored";
    one.kill();
    const isStored = (await origin.storage.list("")).some(([key]) => key.includes("/q/"));
    if (isSafe) expect(isStored).toBe(true);
    await all.run(5_000);
    expect(all.server.document<Notes>("notes").text).toBe(isStored ? "last words" : "");
    expect(b.doc().text).toBe(isStored ? "last words" : "");
    stored += isStored ? 1 : 0;
  }
  expect(stored).toBeGreaterThan(15);
  expect(stored).toBeLessThan(60);
});

it("a page that is left while its change is being refused: the page that comes after it has the draft", async () => {
  for (let ms = 0; ms < 200; ms += 4) {
    const { world: all, origin } = world();
    const one = origin.page();
    const a = open(one);
    await all.run(1_000);
    all.server.refuse = { code: "limit", left: 100 };
    type(a, "refused");
    await all.run(20 + ms);
    const b = open(origin.page());
    await all.run(ms % 20);
    one.kill();
    await all.run(10_000);
    expect([ms, b.doc().text, b.drafts.list().length]).toEqual([ms, "", 1]);
  }
});

it("a draft that was dropped does not come back when another page is gone", async () => {
  const { world: all, origin } = world();
  const [one, two] = [origin.page(), origin.page()];
  const [a, b] = [open(one), open(two)];
  await all.run(1_000);
  all.server.refuse = { code: "limit", left: 1 };
  type(b, "refused");
  await all.run(1_000);
  const [draft] = b.drafts.list();
  type(a, "kept");
  await all.run(1_000);
  origin.full = true;
  b.drafts.drop(draft!.id);
  one.kill();
  await all.run(3_000);
  expect(b.drafts.list()).toEqual([]);
});

it("two servers in one storage: each has its own documents and queues, and what an app adds to an address changes nothing", async () => {
  const [here, there] = [world(), world()];
  const first = here.origin.page({ url: "ws://here/sync?visit=1" });
  const a = open(first);
  await here.world.run(1_000);
  type(a, "of the first server");
  await here.world.run(1_000);
  first.client.goOffline();
  type(a, ", unsent");
  await here.world.run(1_000);
  first.kill();
  const second = new Page(there.world, new MemoryOrigin().page(), () => here.origin.storage, { url: "ws://there/sync" });
  const b = open(second);
  await there.world.run(5_000);
  expect([b.doc().text, there.world.server.document<Notes>("notes").text]).toEqual(["", ""]);
  const again = open(here.origin.page({ url: "ws://here/sync?visit=2" }));
  await here.world.run(5_000);
  expect([again.doc().text, again.safety]).toEqual(["of the first server, unsent", "durable"]);
});

it("a replica that is too large for the storage holds up no edit", async () => {
  const { world: all, origin } = world();
  const page = origin.page();
  const handle = open(page);
  await all.run(1_000);
  origin.tooLarge = (batch) => batch.some((write) => "put" in write && write.put.includes("/r/"));
  type(handle, "sent");
  await all.run(2_000);
  expect(page.errors.some((error) => error.startsWith("storage:"))).toBe(true);
  page.client.goOffline();
  type(handle, " and kept");
  await all.run(100);
  expect(handle.safety).toBe("local");
  page.kill();
  const next = open(origin.page({ offline: true }));
  await all.run(1_000);
  expect(next.doc().text).toBe("sent and kept");
});

it("a storage that is full while changes are made anew: they wait until it has let the former ones go, so a page that dies doubles nothing", async () => {
  for (let ms = 0; ms < 400; ms += 50) {
    const { world: all, origin } = world();
    const elsewhere = open(new Origin(all).page());
    const one = origin.page();
    const a = open(one);
    await all.run(1_000);
    type(elsewhere, "bad;");
    await all.run(500);
    const bad = all.server.length("notes") - 1;
    type(a, "mine;");
    await all.run(120);
    expect(a.safety).toBe("durable");
    origin.full = true;
    all.server.quarantine("notes", bad);
    await all.run(100 + ms);
    one.kill();
    origin.full = false;
    const next = origin.page();
    const b = open(next);
    await all.run(10_000);
    expect([ms, all.server.document<Notes>("notes").text.split("mine;").length - 1 + b.drafts.list().length]).toEqual([ms, 1]);
    expect(b.safety).toBe("durable");
  }
});

it("a server that was put back: a page that dies before it has brought back what is missing leaves that to the next one", async () => {
  const { world: all, origin } = world();
  const one = origin.page();
  const a = open(one);
  await all.run(1_000);
  type(a, "kept");
  await all.run(2_000);
  all.server.crash();
  all.server.restore("notes", 1);
  all.server.refuse = { code: "unavailable", left: 1_000 };
  all.cut();
  await all.run(3_000);
  expect([a.doc().text, all.server.document<Notes>("notes").text]).toEqual(["kept", ""]);
  one.kill();
  all.server.refuse.left = 0;
  const next = origin.page();
  const b = open(next);
  await all.run(5_000);
  expect([b.doc().text, b.safety, all.server.document<Notes>("notes").text]).toEqual(["kept", "durable", "kept"]);
  expect([...one.errors, ...next.errors]).toEqual([]);
});

it.each([
  ["no MessagePack", [0xc1]],
  ["a message that is cut off", [0x93, 0x10, 0x01]],
  ["an unknown message", [0x91, 0x63]],
])("a server that sends %s: the app is told, and the client goes on on another connection with all that was typed", async (_, frame) => {
  const { world: all, origin } = world();
  const page = origin.page();
  const handle = open(page);
  await all.run(1_000);
  const former = page.client.session!;
  type(handle, "kept");
  all.server.send(former, new Uint8Array(frame));
  await all.run(5_000);
  expect(page.errors.map((error) => error.split(":")[0])).toEqual(["protocol"]);
  expect([page.client.status.state, page.client.session === former]).toEqual(["connected", false]);
  expect([handle.safety, all.server.document<Notes>("notes").text]).toEqual(["durable", "kept"]);
});

it("a storage that never takes anything: what is made anew after a reset is sent all the same", async () => {
  const { world: all, origin } = world();
  origin.full = true;
  const elsewhere = open(new Origin(all).page());
  const handle = open(origin.page());
  await all.run(1_000);
  type(elsewhere, "bad;");
  await all.run(500);
  const bad = all.server.length("notes") - 1;
  type(handle, "mine;");
  await all.run(500);
  all.server.quarantine("notes", bad);
  await all.run(10_000);
  type(handle, "more;");
  await all.run(2_000);
  expect([handle.safety, all.server.document<Notes>("notes").text.split(";").sort()]).toEqual(["durable", ["", "bad", "mine", "more"]]);
});

it("whenDurable waits for the change it was asked for, also behind others that a server put back from a backup has lost", async () => {
  const { world: all, origin } = world();
  const page = origin.page();
  const handle = open(page);
  await all.run(1_000);
  type(handle, "old;");
  await all.run(2_000);
  page.client.goOffline();
  type(handle, "new;");
  let durable = false;
  const waiter = handle.whenDurable().then(() => (durable = true));
  await all.run(1_000);
  all.server.restore("notes", 1);
  all.server.refuse = { code: "unavailable", left: 1_000 };
  page.client.goOnline();
  await all.run(3_000);
  expect([handle.status.state, handle.unsyncedChanges, durable]).toEqual(["live", 2, false]);
  all.server.refuse.left = 0;
  await all.run(60_000);
  await waiter;
  expect(all.server.document<Notes>("notes").text).toBe("old;new;");
});

it("a draft that another page has left says nothing of this page's changes: who waits for them goes on waiting", async () => {
  const { world: all, origin } = world();
  const [one, two] = [origin.page(), origin.page()];
  const [a, b] = [open(one), open(two)];
  await all.run(1_000);
  all.server.refuse = { code: "limit", left: 1 };
  type(a, "refused;");
  await all.run(1_000);
  expect([a.drafts.list().length, b.drafts.list().length]).toEqual([1, 0]);
  two.client.goOffline();
  type(b, "mine;");
  const waiter = b.whenDurable().then(() => "durable", String);
  one.kill();
  await all.run(1_000);
  expect(b.drafts.list()).toHaveLength(1);
  two.client.goOnline();
  await all.run(5_000);
  expect([await waiter, all.server.document<Notes>("notes").text]).toEqual(["durable", "mine;"]);
});

it("another user in a running page: what the former one waits for is not said to be durable, and is sent when they are back", async () => {
  const { world: all, origin } = world();
  let sub = "eve";
  const page = origin.page({ token: async () => jwt({ sub }) });
  const handle = open(page);
  await all.run(1_000);
  page.client.goOffline();
  type(handle, "eve's");
  const waiter = handle.whenDurable().then(() => "durable", () => "not durable");
  await all.run(1_000);
  sub = "ada";
  page.client.goOnline();
  await all.run(5_000);
  expect([await waiter, handle.doc().text]).toEqual(["not durable", ""]);
  page.kill();
  const back = open(origin.page({ token: jwt({ sub: "eve" }) }));
  await all.run(5_000);
  expect([back.safety, all.server.document<Notes>("notes").text]).toEqual(["durable", "eve's"]);
});

it("a document that is closed while the server lacks its changes: they count as unsafe, are sent without it, and then it is let go", async () => {
  const { world: all, origin } = world();
  const page = origin.page();
  const handle = open(page);
  await all.run(1_000);
  page.client.goOffline();
  type(handle, "kept");
  await Promise.all([handle.close(), all.run(1_000)]);
  expect([page.client.safety, page.client.unsyncedChanges]).toEqual(["local", 1]);
  const durable = page.client.whenDurable();
  page.client.goOnline();
  await Promise.all([durable, all.run(5_000)]);
  expect(all.server.document<Notes>("notes").text).toBe("kept");
  expect(page.client.unsyncedChanges).toBe(0);
  const sent = page.client.figures.bytesIn;
  const elsewhere = open(new Origin(all).page());
  await all.run(1_000);
  type(elsewhere, " elsewhere");
  await all.run(1_000);
  expect(all.server.document<Notes>("notes").text).toBe("kept elsewhere");
  expect(page.client.figures.bytesIn).toBe(sent);
});

it("a document that is opened again before the server has its changes goes on as it was", async () => {
  const { world: all, origin } = world();
  const page = origin.page();
  const handle = open(page);
  await all.run(1_000);
  page.client.goOffline();
  type(handle, "one;");
  await Promise.all([handle.close(), all.run(1_000)]);
  const again = open(page);
  expect([again.isReady, again.doc().text, again.unsyncedChanges]).toEqual([true, "one;", 1]);
  type(again, "two;");
  page.client.goOnline();
  await all.run(5_000);
  expect([again.status.state, again.safety, all.server.document<Notes>("notes").text]).toEqual(["live", "durable", "one;two;"]);
});

it("closed documents without end: the first are let go, and their changes stay stored", async () => {
  const { world: all, origin } = world();
  const page = origin.page({ offline: true });
  for (let number = 0; number < 40; number += 1) {
    const handle = page.client.open<Notes>(`note-${number}`, { initial });
    await all.run(100);
    type(handle, "kept");
    await Promise.all([handle.close(), all.run(100)]);
  }
  await all.run(1_000);
  expect(page.client.unsyncedChanges).toBe(32 * 2);
  expect((await origin.storage.list("")).filter(([key]) => key.includes("/q/"))).toHaveLength(40 * 2);
  await Promise.all([page.client.close(), all.run(1_000)]);
});

it("a draft that is made anew or dropped on one page is gone on the others", async () => {
  const { world: all, origin } = world();
  const one = open(origin.page());
  await all.run(1_000);
  all.server.refuse = { code: "limit", left: 1 };
  type(one, "refused;");
  await all.run(1_000);
  const two = open(origin.page());
  await all.run(1_000);
  const [draft] = one.drafts.list();
  expect(two.drafts.list()).toEqual([draft]);
  expect(one.drafts.makeAnew(draft!.id)).toBe(true);
  await all.run(1_000);
  expect([two.drafts.list(), two.drafts.makeAnew(draft!.id)]).toEqual([[], false]);
  await all.run(1_000);
  expect(all.server.document<Notes>("notes").text).toBe("refused;");
});

it("how a document begins may be said by the second of two handles that are opened at once", async () => {
  const { world: all, origin } = world();
  const page = origin.page({ offline: true });
  const [plain, beginning] = [page.client.open<Notes>("notes"), open(page)];
  await all.run(1_000);
  expect([plain.isReady, beginning.isReady]).toEqual([true, true]);
  expect(plain.doc().text).toBe("");
});

it.each([-86_400_000, 86_400_000])("a time of day that jumps by %i ms: the connection stays, and the token is renewed when it is time", async (skewMs) => {
  const { world: all, origin } = world();
  let asked = 0;
  const token = async () => {
    asked += 1;
    return jwt({ sub: "ada", exp: (1_700_000_000_000 + all.now + 600_000) / 1_000 });
  };
  const page = origin.page({ token });
  const handle = open(page);
  await all.run(60_000);
  const { session } = page.client;
  page.skewMs = skewMs;
  type(handle, "typed");
  await all.run(400_000);
  expect([asked, page.client.session, handle.safety]).toEqual([1, session, "durable"]);
  await all.run(120_000);
  expect([asked, page.client.session, handle.status.state]).toEqual([2, session, "live"]);
  expect(page.errors).toEqual([]);
});

it("a storage that cannot be read when a document is opened: the server's is shown, and what a page has left is sent once it can be", async () => {
  const { world: all, origin } = world();
  const one = origin.page();
  const a = open(one);
  await all.run(1_000);
  type(a, "sent;");
  await all.run(2_000);
  one.client.goOffline();
  type(a, "left;");
  await all.run(1_000);
  one.kill();
  origin.unreadable = true;
  const two = origin.page();
  const b = open(two);
  await all.run(2_000);
  expect([b.status.state, b.doc().text]).toEqual(["live", "sent;"]);
  expect(two.errors.every((error) => error.startsWith("storage:"))).toBe(true);
  expect(two.errors.length).toBeGreaterThan(0);
  type(b, "more;");
  await all.run(2_000);
  origin.unreadable = false;
  await all.run(30_000);
  expect([b.safety, b.doc()]).toEqual(["durable", all.server.document<Notes>("notes")]);
  expect([...b.doc().text.split(";")].sort()).toEqual(["", "left", "more", "sent"]);
});
