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
async function until(condition: () => boolean, what: string, ms = 60_000): Promise<void> {
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
