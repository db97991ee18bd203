/** What a handle says of its changes. */
import { expect, it, vi } from "vitest";
import { Client } from "../../src/client.js";
import type { Safety } from "../../src/status.js";
import { memoryStorage } from "../../src/storage/memory.js";
import type { Storage } from "../../src/storage/storage.js";
import { TestServer } from "../server/server.js";

it("nothing is said of changes before it is known whether some are kept", async () => {
  const server = new TestServer();
  const inner = memoryStorage();
  let look: () => void = () => undefined;
  let looking: Promise<void> = Promise.resolve();
  const storage: Storage = {
    get: (key) => inner.get(key),
    list: async (prefix) => {
      await looking;
      return inner.list(prefix);
    },
    write: (batch) => inner.write(batch),
    close: async () => undefined,
  };
  const options = { url: "ws://test", transport: server.transport(), storage, groupMs: 1 };
  const before = new Client({ ...options, offline: true });
  await before.open("notes", { initial: { text: "kept" } }).whenReady();
  await before.close();

  looking = new Promise((resolve) => (look = resolve));
  const client = new Client(options);
  const notes = client.open("notes");
  const said: Array<{ safety: Safety; unsyncedChanges: number }> = [];
  notes.on("safety", (safety) => said.push(safety));
  await vi.waitFor(() => expect(client.status.state).toBe("connected"), { timeout: 30_000 });
  expect(said).toEqual([]);
  look();
  await notes.whenDurable();
  expect(said[0]?.unsyncedChanges).toBe(1);
  expect(said.at(-1)).toEqual({ safety: "durable", unsyncedChanges: 0 });
  await client.close();
}, 60_000);
