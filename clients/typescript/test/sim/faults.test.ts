/** One fault at a time, against a whole client in virtual time. */
import * as A from "@automerge/automerge";
import { expect, it } from "vitest";
import type { DocHandle } from "../../src/index.js";
import { Origin, World, type Page } from "./world.js";

interface Notes {
  text: string;
}

const initial: Notes = { text: "" };

function open(page: Page): DocHandle<Notes> {
  return page.client.open<Notes>("notes", { initial });
}

const type = (handle: DocHandle<Notes>, text: string) => handle.change((doc) => A.splice(doc, ["text"], doc.text.length, 0, text));

function world(): { world: World; origin: Origin } {
  const made = new World(1);
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
