import { expect, it } from "vitest";
import { Writer } from "../../src/shell/writer.js";
import { StorageError, type Storage, type StorageWrite } from "../../src/storage/storage.js";

/** A clock that goes when it is told, and a storage that answers when it is told. */
function world() {
  const timers: Array<{ at: number; done: () => void }> = [];
  let now = 0;
  const clock = {
    now: () => now,
    wall: () => now,
    after: (ms: number, done: () => void) => {
      const timer = { at: now + ms, done };
      timers.push(timer);
      return () => void timers.splice(timers.indexOf(timer), timers.includes(timer) ? 1 : 0);
    },
  };
  const pass = async (ms: number) => {
    now += ms;
    for (const timer of timers.filter(({ at }) => at <= now)) {
      timers.splice(timers.indexOf(timer), 1);
      timer.done();
    }
    await Promise.resolve();
  };
  const written: string[][] = [];
  let answer: Array<(error?: unknown) => void> = [];
  const storage: Storage = {
    get: async () => undefined,
    list: async () => [],
    close: async () => {},
    write: (batch) => {
      written.push(batch.map((write) => ("put" in write ? `+${write.put}` : `-${write.remove}`)));
      return new Promise((resolve, reject) => answer.push((error) => (error === undefined ? resolve() : reject(error))));
    },
  };
  const answered = async (error?: unknown) => {
    const [first, ...rest] = answer;
    answer = rest;
    first?.(error);
    for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
  };
  const told: string[] = [];
  const asker = (name: string) => ({
    stored: () => void told.push(`${name} stored`),
    failed: (error: unknown) => void told.push(`${name} ${(error as StorageError).kind}`),
  });
  return { writer: new Writer(storage, clock), written, answered, pass, told, asker };
}

const put = (key: string): StorageWrite => ({ put: key, value: new Uint8Array() });

it("writes in the order given; what comes meanwhile goes together, and nothing is left out", async () => {
  const { writer, written, answered, told, asker } = world();
  writer.write([put("a")], asker("a"));
  writer.write([put("b")], asker("b"));
  writer.write([{ remove: "c" }], asker("c"));
  await answered();
  await answered();
  expect(written).toEqual([["+a"], ["+b", "-c"]]);
  expect(told).toEqual(["a stored", "b stored", "c stored"]);
  await writer.settled();
});

it("tells of a failure once, and tries again with all that came behind it", async () => {
  const { writer, written, answered, pass, told, asker } = world();
  writer.write([put("a"), put("b")], asker("one"));
  await answered(new StorageError("full", "no space"));
  writer.write([{ remove: "a" }], asker("two"));
  expect(told).toEqual(["one full", "two unavailable"]);
  await writer.settled();
  await pass(5_000);
  await answered(new StorageError("full", "no space"));
  expect(told).toHaveLength(2);
  await pass(5_000);
  await answered();
  expect(written).toEqual([["+a", "+b"], ["+a", "+b", "-a"], ["+b", "-a"]]);
  expect(told).toEqual(["one full", "two unavailable", "one stored", "two stored"]);
});

it("calls a storage that does not answer blocked, and still hears it when it does", async () => {
  const { writer, answered, pass, told, asker } = world();
  writer.write([put("a")], asker("a"));
  const settled = writer.settled();
  await pass(5_000);
  await settled;
  expect(told).toEqual(["a blocked"]);
  await answered();
  expect(told).toEqual(["a blocked", "a stored"]);
});

it("writes what can come again after what was given before it, and lets it be overtaken while it fails", async () => {
  const { writer, written, answered, pass, told, asker } = world();
  writer.write([put("edit")], asker("edit"));
  writer.writeLater([put("replica")], asker("replica"));
  expect(written).toEqual([["+edit"]]);
  await answered();
  expect(written).toEqual([["+edit"], ["+replica"]]);
  await answered(new StorageError("full", "no space"));
  writer.write([put("next")], asker("next"));
  await answered();
  expect(told).toEqual(["edit stored", "replica full", "next stored"]);
  await writer.settled();
  await pass(5_000);
  await answered();
  expect(written).toEqual([["+edit"], ["+replica"], ["+next"], ["+replica"]]);
  expect(told.at(-1)).toBe("replica stored");
});

it("hands over what waits for an answer when there may be none", async () => {
  const { writer, written, answered, told, asker } = world();
  writer.write([put("a")], asker("a"));
  writer.write([put("b")], asker("b"));
  expect(written).toEqual([["+a"]]);
  writer.atLast(() => writer.write([{ remove: "c" }], asker("c")));
  expect(written).toEqual([["+a"], ["+b", "-c"]]);
  await answered();
  await answered();
  await answered();
  expect(told).toEqual(["a stored", "b stored", "c stored"]);
  writer.atLast(() => ["d", "e"].forEach((key) => writer.write([put(key)], asker(key))));
  await answered();
  expect(written.slice(2)).toEqual([["+b", "-c"], ["+d", "+e"]]);
  expect(told.slice(3)).toEqual(["d stored", "e stored"]);
});
