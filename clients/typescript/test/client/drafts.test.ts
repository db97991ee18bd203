import { expect, it, vi } from "vitest";
import { Client } from "../../src/client.js";
import { memoryStorage } from "../../src/storage/memory.js";
import type { Storage, StorageWrite } from "../../src/storage/storage.js";
import { TestServer } from "../server/server.js";

interface Note {
  text: string;
}

it("a draft that is made anew is never stored without its changes, nor they without its end", async () => {
  const server = new TestServer();
  const batches: Array<readonly StorageWrite[]> = [];
  const inner = memoryStorage();
  const storage: Storage = {
    get: (key) => inner.get(key),
    list: (prefix) => inner.list(prefix),
    close: () => inner.close(),
    write: (batch) => {
      batches.push(batch);
      return inner.write(batch);
    },
  };
  const client = new Client({ url: "ws://test", transport: server.transport(), storage, groupMs: 1 });
  const handle = client.open<Note>("note", { initial: { text: "" } });
  await handle.whenReady();
  await handle.whenDurable();
  server.judge = () => "limit";
  handle.change((doc) => void (doc.text = "refused"));
  await vi.waitFor(() => expect(handle.drafts.list()).toHaveLength(1), { timeout: 120_000 });
  expect(handle.doc().text).toBe("");
  server.judge = () => undefined;
  batches.length = 0;
  expect(handle.drafts.makeAnew(handle.drafts.list()[0]!.id)).toBe(true);
  await handle.whenDurable();
  const ending = batches.filter((batch) => batch.some((write) => "remove" in write && write.remove.includes("/x/")));
  expect(ending).toHaveLength(1);
  expect(ending[0]!.some((write) => "put" in write && write.put.includes("/q/"))).toBe(true);
  expect(server.doc<Note>("note").text).toBe("refused");
  await client.close();
});
