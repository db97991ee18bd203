import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/shell/clock.js";
import { Writer } from "../../src/shell/writer.js";
import type { Storage, StorageWrite } from "../../src/storage/storage.js";

/** A storage whose writes are answered by the test, one after another. */
function slow(): { storage: Storage; written: string[]; next(): Promise<() => void> } {
  const written: string[] = [];
  const waiting: Array<() => void> = [];
  let arrived = (): void => undefined;
  const write = (batch: readonly StorageWrite[]): Promise<void> =>
    new Promise((kept) => {
      waiting.push(() => {
        written.push(...batch.flatMap((each) => ("put" in each ? each.put : [])));
        kept();
      });
      arrived();
    });
  const next = async (): Promise<() => void> => {
    if (waiting.length === 0) await new Promise<void>((resolve) => (arrived = resolve));
    return waiting.shift()!;
  };
  const storage = { get: async () => undefined, list: async () => [], write, close: async () => undefined };
  return { storage, written, next };
}

describe("the writer", () => {
  it("writes what is asked for while it writes, and does not call it stored before", async () => {
    const { storage, written, next } = slow();
    const writer = new Writer(storage, systemClock);
    const stored: string[] = [];
    const ask = (key: string): void =>
      writer.write([{ put: key, value: new Uint8Array() }], { stored: () => stored.push(key), failed: (error) => expect.unreachable(String(error)) });
    ask("a");
    const first = await next();
    ask("b");
    ask("c");
    first();
    const second = await next();
    expect(stored).toEqual(["a"]);
    second();
    await writer.settled();
    expect([written, stored]).toEqual([["a", "b", "c"], ["a", "b", "c"]]);
  });
});
