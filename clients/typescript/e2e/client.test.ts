/** Two clients and the real server. */
import * as A from "@automerge/automerge";
import { afterEach, describe, expect, it } from "vitest";
import { Client, memoryStorage, type ClientOptions, type DocHandle, type Storage } from "../src/index.js";
import { nodeTransport } from "../src/node/index.js";
import { Server, token } from "./server.js";

interface Notes {
  text: string;
  tags: string[];
}
const initial: Notes = { text: "", tags: [] };

const ends: Array<() => Promise<void>> = [];

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function serve(options: { dev?: boolean } = {}): Promise<Server> {
  const server = await Server.start(options);
  ends.push(() => server.stop());
  return server;
}

function connect(server: Server, options: Partial<ClientOptions> = {}): Client {
  const client = new Client({ url: server.url, transport: nodeTransport(), ...options });
  ends.push(() => client.close());
  return client;
}

/** Waits for an event-driven condition. */
async function until(condition: () => boolean, what: string, ms = 200_000): Promise<void> {
  const end = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`still not so after ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const same = (a: DocHandle<Notes>, b: DocHandle<Notes>) => () => a.heads().join() === b.heads().join();

async function openTwo(server: Server): Promise<[DocHandle<Notes>, DocHandle<Notes>, Client, Client]> {
  const [one, two] = [connect(server), connect(server)];
  const [a, b] = [one.open<Notes>("notes", { initial }), two.open<Notes>("notes", { initial })];
  await Promise.all([a.whenReady(), b.whenReady()]);
  return [a, b, one, two];
}

describe("two clients", () => {
  it("share one start and converge while both type", async () => {
    const [a, b] = await openTwo(await serve());
    for (let at = 0; at < 100; at += 1) {
      a.change((doc) => A.splice(doc, ["text"], 0, 0, "a"));
      b.change((doc) => A.splice(doc, ["text"], doc.text.length, 0, "b"));
      if (at % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(a.safety).not.toBe("durable");
    await Promise.all([a.whenDurable(), b.whenDurable()]);
    expect([a.safety, a.unsyncedChanges]).toEqual(["durable", 0]);
    await until(same(a, b), "equal heads");
    expect(a.doc()).toEqual(b.doc());
    expect([...a.doc().text].sort().join("")).toBe("a".repeat(100) + "b".repeat(100));
  });
});

describe("a client that stays away", () => {
  it("goes on offline, is shown after a reload without network, and converges", async () => {
    const server = await serve();
    const [a, b, one, two] = await openTwo(server);
    a.change((doc) => A.splice(doc, ["text"], 0, 0, "start "));
    await a.whenDurable();
    await until(same(a, b), "equal heads");
    one.goOffline();
    two.goOffline();
    a.change((doc) => doc.tags.push("from a"));
    b.change((doc) => doc.tags.push("from b"));
    expect([a.safety, b.safety]).toEqual(["unstored", "unstored"]);
    await until(() => a.safety === "local" && b.safety === "local", "both stored");
    one.goOnline();
    two.goOnline();
    await Promise.all([one.whenDurable(), two.whenDurable()]);
    await until(same(a, b), "equal heads");
    expect([...a.doc().tags].sort()).toEqual(["from a", "from b"]);
  });

  it("is shown what it has after a reload without network, and sends it later", async () => {
    const server = await serve();
    const storage = keeping(memoryStorage());
    const first = connect(server, { storage });
    const a = first.open<Notes>("notes", { initial });
    await a.whenReady();
    a.change((doc) => A.splice(doc, ["text"], 0, 0, "acknowledged "));
    await a.whenDurable();
    first.goOffline();
    a.change((doc) => A.splice(doc, ["text"], 0, 0, "unsent "));
    await first.close();
    const second = connect(server, { storage, offline: true });
    const again = second.open<Notes>("notes", { initial });
    await again.whenReady();
    expect(again.doc().text).toBe("unsent acknowledged ");
    expect([again.safety, again.unsyncedChanges]).toEqual(["local", 1]);
    second.goOnline();
    await again.whenDurable();
    expect(second.figures.bytesIn).toBeLessThan(2_000);
    const other = connect(server).open<Notes>("notes");
    await other.whenReady();
    expect(other.doc().text).toBe("unsent acknowledged ");
  });
});

/** A storage that outlives the client that closes it. */
function keeping(storage: Storage): Storage {
  return { get: (key) => storage.get(key), list: (prefix) => storage.list(prefix), write: (batch) => storage.write(batch), close: async () => {} };
}

describe("a server that is killed", () => {
  it("loses nothing acknowledged, and the clients drop nothing unacknowledged", async () => {
    const server = await serve();
    const [a, b] = await openTwo(server);
    let typed = 0;
    const typing = setInterval(() => {
      a.change((doc) => void doc.tags.push(`a${typed}`));
      b.change((doc) => void doc.tags.push(`b${typed}`));
      typed += 1;
    }, 10);
    await until(() => typed > 20, "typing");
    await server.kill();
    await until(() => typed > 40, "typing on");
    await server.run();
    await until(() => typed > 60, "typing on");
    clearInterval(typing);
    await Promise.all([a.whenDurable(), b.whenDurable()]);
    await until(same(a, b), "equal heads");
    const all = Array.from({ length: typed }, (_, at) => [`a${at}`, `b${at}`]).flat();
    expect([...a.doc().tags].sort()).toEqual(all.sort());
  });
});

describe("tokens", () => {
  it("a reader who types is told", async () => {
    const server = await serve({ dev: false });
    const writer = connect(server, { token: token("ada", { "**": "write" }) });
    const written = writer.open<Notes>("notes", { initial });
    await written.whenReady();
    await written.whenDurable();
    const reader = connect(server, { token: token("bob", { "**": "read" }) });
    const handle = reader.open<Notes>("notes");
    await until(() => handle.status.state === "live", "live");
    expect(handle.status).toEqual({ state: "live", access: "read" });
    expect(() => handle.change((doc) => void doc.tags.push("no"))).toThrow(expect.objectContaining({ kind: "read_only" }));
  });

  it("what a reader wrote offline comes back as a draft, and can be made anew with another grant", async () => {
    const server = await serve({ dev: false });
    const writer = connect(server, { token: token("ada", { "**": "write" }) });
    const written = writer.open<Notes>("notes", { initial });
    await written.whenReady();
    await written.whenDurable();
    let access: "read" | "write" = "write";
    const bob = connect(server, { token: async () => token("bob", { "**": access }) });
    const handle = bob.open<Notes>("notes");
    await handle.whenReady();
    bob.goOffline();
    handle.change((doc) => A.splice(doc, ["text"], 0, 0, "one"));
    handle.change((doc) => A.splice(doc, ["text"], 3, 0, " two"));
    const durable = handle.whenDurable();
    access = "read";
    const told: string[] = [];
    handle.on("draft", (draft) => told.push(draft.code));
    bob.goOnline();
    await expect(durable).rejects.toThrow("forbidden");
    expect(told).toEqual(["forbidden"]);
    expect(handle.doc().text).toBe("");
    expect(handle.unsyncedChanges).toBe(0);
    const [draft] = handle.drafts.list();
    expect(draft).toMatchObject({ code: "forbidden", changes: 2 });
    expect(handle.drafts.preview(draft!.id)?.text).toBe("one two");
    expect(handle.drafts.export(draft!.id)).toHaveLength(2);
    access = "write";
    bob.goOffline();
    bob.goOnline();
    await until(() => handle.status.state === "live" && handle.status.access === "write", "write access");
    expect(handle.drafts.makeAnew(draft!.id)).toBe(true);
    expect(handle.drafts.list()).toEqual([]);
    await handle.whenDurable();
    await until(() => written.doc().text === "one two", "the draft arrives");
  });

  it("are renewed before they expire, without a new connection", async () => {
    const server = await serve({ dev: false });
    let asked = 0;
    const client = connect(server, {
      token: async () => {
        asked += 1;
        return token("ada", { "**": "write" }, 24);
      },
    });
    const states: string[] = [];
    client.on("status", ({ state }) => states.push(state));
    const handle = client.open<Notes>("notes", { initial });
    await handle.whenReady();
    // A quarter of its time before its end: 6 s are left for an answer on a slow machine.
    await until(() => asked >= 2, "a renewal");
    await until(() => client.status.state === "connected", "still connected");
    handle.change((doc) => void doc.tags.push("still here"));
    await handle.whenDurable();
    expect(states.filter((state) => state === "connected")).toHaveLength(1);
  });

  it("c4_a_token_that_is_wrong_twice_stops_the_client", async () => {
    const server = await serve({ dev: false });
    let asked = 0;
    const client = connect(server, {
      token: async () => {
        asked += 1;
        return `${token("ada", { "**": "write" })}x`;
      },
    });
    await until(() => client.status.state === "rejected", "rejected");
    expect(client.status).toMatchObject({ state: "rejected", code: 4401 });
    expect(asked).toBe(2);
  });

  it("o2_a_document_without_a_grant_is_refused", async () => {
    const server = await serve({ dev: false });
    const client = connect(server, { token: token("ada", { "mine/*": "write" }) });
    const handle = client.open<Notes>("yours/notes");
    await expect(handle.whenReady()).rejects.toThrow("forbidden");
    expect(handle.status).toMatchObject({ state: "refused", code: "forbidden" });
  });
});

describe("presence and signals", () => {
  it("show who is here, say it once, and end with the handle", async () => {
    const server = await serve({ dev: false });
    const docs = { "**": "write" } as const;
    const [one, two] = [connect(server, { token: token("ada", docs) }), connect(server, { token: token("bob", docs) })];
    const [a, b] = [one.open<Notes>("notes", { initial }), two.open<Notes>("notes", { initial })];
    a.presence.set({ cursor: 3 });
    await Promise.all([a.whenReady(), b.whenReady()]);
    await until(() => b.presence.others.size === 1, "ada is shown");
    const [ada] = [...b.presence.others.values()];
    expect(ada).toMatchObject({ subject: "ada", name: "ada", state: { cursor: 3 } });
    expect(a.presence.others.size).toBe(0);
    const heard: unknown[] = [];
    b.on("signal", ({ payload }) => heard.push(payload));
    a.signal({ wave: true });
    await until(() => heard.length > 0, "the signal");
    expect(heard).toEqual([{ wave: true }]);
    await a.close();
    await until(() => b.presence.others.size === 0, "ada is gone");
  });
});

describe("large documents", () => {
  it("come with progress, deflated", async () => {
    const server = await serve();
    const writer = connect(server).open<Notes>("notes", { initial });
    await writer.whenReady();
    for (let at = 0; at < 6; at += 1) {
      const text = Array.from({ length: 20_000 }, (_, index) => ((index * 7919 + at * 104_729) % 9_973).toString(36)).join(" ");
      writer.change((doc) => A.splice(doc, ["text"], 0, 0, text.slice(0, 60_000)));
    }
    await writer.whenDurable();
    const reader = connect(server);
    const handle = reader.open<Notes>("notes");
    const progress: Array<{ received: number; total: number }> = [];
    handle.on("progress", (event) => progress.push(event));
    await handle.whenReady();
    expect(handle.doc().text).toBe(writer.doc().text);
    expect(progress.length).toBeGreaterThan(1);
    expect(progress.every(({ received, total }) => received <= total)).toBe(true);
  });
});
