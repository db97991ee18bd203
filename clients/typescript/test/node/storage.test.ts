import { mkdir, open, readdir, readFile, rm, writeFile, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { holdDirectory } from "../../src/node/directory.js";
import { fileStorage } from "../../src/node/index.js";
import { StorageError, type Storage } from "../../src/storage/storage.js";
import { storageContract } from "../storage/contract.js";
import { batchOf, COUNT, numberOf, readable, stateAfter } from "./batches.js";
import { scratch } from "./scratch.js";

let folder: string;
let handles: FileHandle;
beforeAll(async () => {
  folder = await scratch();
  const any = await open(join(folder, "any"), "w");
  handles = Object.getPrototypeOf(any) as FileHandle;
  await any.close();
});
afterAll(() => rm(folder, { recursive: true, force: true }));
afterEach(() => vi.restoreAllMocks());

let made = 0;
const fresh = (): string => join(folder, "parent", String(made++));

storageContract("files", async () => {
  const directory = fresh();
  return { storage: fileStorage(directory), reopen: async () => fileStorage(directory) };
});

/** A directory with batches 1 to `count`, and the log's length after each. */
async function written(count: number): Promise<{ directory: string; log: string; ends: number[] }> {
  const directory = fresh();
  const log = join(directory, "log");
  const storage = fileStorage(directory);
  const ends: number[] = [];
  for (let number = 1; number <= count; number++) {
    await storage.write(batchOf(number));
    ends.push((await readFile(log)).length);
  }
  await storage.close();
  return { directory, log, ends };
}

async function faultOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(StorageError);
  return (error as StorageError).kind;
}

const fault = (code: string): Error => Object.assign(new Error(`${code}: injected`), { code });

const state = async (storage: Storage): Promise<unknown> => {
  const entries = readable(await storage.list(""));
  await storage.close();
  return entries;
};

describe("a log that a crash broke off", () => {
  it("opens with every batch whole or absent, wherever its last record ends", async () => {
    const { directory, log, ends } = await written(3);
    const whole = await readFile(log);
    const [from, to] = [ends[1]!, ends[2]!];
    const cuts = [...Array(60).keys()].map((step) => from + Math.floor(((to - from) * step) / 60));
    for (const cut of [...cuts, from + 1, from + 19, from + 20, from + 21, to - 1]) {
      await writeFile(log, whole.subarray(0, cut));
      expect(await state(fileStorage(directory))).toEqual(stateAfter(2));
      expect((await readFile(log)).length).toBe(from);
    }
  });

  it("opens when the file grew, and its bytes did not come", async () => {
    const { directory, log, ends } = await written(3);
    const whole = await readFile(log);
    await writeFile(log, Buffer.concat([whole.subarray(0, ends[1]), Buffer.alloc(100_000)]));
    const storage = fileStorage(directory);
    await storage.write(batchOf(3));
    expect(await state(storage)).toEqual(stateAfter(3));
    expect(await state(fileStorage(directory))).toEqual(stateAfter(3));
  });

  it("begins anew what was not begun, and drops what was not finished", async () => {
    const { directory } = await written(3);
    await writeFile(join(directory, "log.next"), "half of a log");
    expect(await state(fileStorage(directory))).toEqual(stateAfter(3));
    expect(await readdir(directory)).not.toContain("log.next");
  });
});

describe("a log that is damaged", () => {
  it("does not open when whole records lie behind a broken one, and is left as it is", async () => {
    const { directory, log, ends } = await written(3);
    const whole = await readFile(log);
    for (const at of [ends[0]! + 2, ends[0]! + 17, ends[0]! + 40, ends[1]! - 1]) {
      const broken = Buffer.from(whole);
      broken[at]! ^= 1;
      await writeFile(log, broken);
      expect(await faultOf(fileStorage(directory).list(""))).toBe("damaged");
      expect(broken.equals(await readFile(log))).toBe(true);
    }
    await writeFile(log, whole);
    expect(await state(fileStorage(directory))).toEqual(stateAfter(3));
  });

  it("does not open what is no log", async () => {
    const directory = fresh();
    await mkdir(directory, { recursive: true });
    for (const text of ["", "syncline storage 2\n", "something else that is longer"]) {
      await writeFile(join(directory, "log"), text);
      expect(await faultOf(fileStorage(directory).get("a"))).toBe("damaged");
    }
  });

  it("says which value was changed under it", async () => {
    const { directory, log } = await written(1);
    const storage = fileStorage(directory);
    await storage.get(COUNT);
    const bytes = await readFile(log);
    bytes[bytes.length - 1]! ^= 1;
    await writeFile(log, bytes);
    expect(await faultOf(storage.get("only/1"))).toBe("damaged");
    expect(numberOf(await storage.get(COUNT))).toBe(1);
    await storage.close();
  });
});

describe("a disk that fails", () => {
  it("fails with `full` when there is no space, keeps what was there, and goes on when there is", async () => {
    const { directory, log, ends } = await written(3);
    const storage = fileStorage(directory);
    await storage.get(COUNT);
    const write = handles.write as unknown as (...call: unknown[]) => Promise<unknown>;
    let calls = 0;
    vi.spyOn(handles, "write").mockImplementation(async function (this: FileHandle, ...call: unknown[]): Promise<never> {
      if (++calls > 1) throw fault("ENOSPC");
      // As a disk does: some of it fits.
      return (await write.call(this, call[0], call[1], 100, call[3])) as never;
    } as never);
    expect(await faultOf(storage.write(batchOf(4)))).toBe("full");
    expect((await readFile(log)).length).toBe(ends[2]);
    vi.restoreAllMocks();
    expect(readable(await storage.list(""))).toEqual(stateAfter(3));
    await storage.write(batchOf(4));
    expect(await state(storage)).toEqual(stateAfter(4));
    expect(await state(fileStorage(directory))).toEqual(stateAfter(4));
  });

  it("takes back what could not be synced", async () => {
    const { directory, log, ends } = await written(3);
    const storage = fileStorage(directory);
    await storage.get(COUNT);
    vi.spyOn(handles, "datasync").mockRejectedValueOnce(fault("EIO"));
    expect(await faultOf(storage.write(batchOf(4)))).toBe("unavailable");
    expect((await readFile(log)).length).toBe(ends[2]);
    await storage.write(batchOf(4));
    expect(await state(storage)).toEqual(stateAfter(4));
  });

  it("writes nothing more when that fails, too; what was kept can be read", async () => {
    const { directory } = await written(3);
    const storage = fileStorage(directory);
    await storage.get(COUNT);
    vi.spyOn(handles, "datasync").mockRejectedValueOnce(fault("EIO")).mockRejectedValueOnce(fault("EIO"));
    expect(await faultOf(storage.write(batchOf(4)))).toBe("unavailable");
    expect(await faultOf(storage.write(batchOf(4)))).toBe("unavailable");
    expect(await state(storage)).toEqual(stateAfter(3));
    const count = numberOf(await fileStorage(directory).get(COUNT));
    expect([3, 4]).toContain(count);
  });

  it("keeps the former log when it cannot be written anew", async () => {
    const directory = fresh();
    const storage = fileStorage(directory);
    const large = (value: number) => [{ put: "large", value: new Uint8Array(700_000).fill(value) }];
    await storage.write(large(1));
    await storage.write(large(2));
    await mkdir(join(directory, "log.next"));
    await storage.write(large(3));
    await storage.write(large(4));
    expect((await storage.get("large"))?.[0]).toBe(4);
    await rm(join(directory, "log.next"), { recursive: true });
    for (let value = 5; value < 12; value++) await storage.write(large(value));
    expect((await readFile(join(directory, "log"))).length).toBeLessThan(4_000_000);
    expect((await storage.get("large"))?.[0]).toBe(11);
    await storage.close();
  });

  it("says when a directory cannot be used", async () => {
    await writeFile(join(folder, "a file"), "");
    expect(await faultOf(fileStorage(join(folder, "a file", "below")).get("a"))).toBe("unavailable");
  });
});

describe("a log that grows", () => {
  it("is written anew, with reads under way", async () => {
    const directory = fresh();
    const storage = fileStorage(directory);
    const reads: Array<Promise<unknown>> = [];
    for (let number = 1; number <= 400; number++) {
      const write = storage.write(batchOf(number));
      reads.push(storage.get("a/07"), storage.list("b/"));
      await write;
    }
    await Promise.all(reads);
    expect((await readFile(join(directory, "log"))).length).toBeLessThan(2_500_000);
    expect(readable(await storage.list(""))).toEqual(stateAfter(400));
    await storage.close();
    expect(await state(fileStorage(directory))).toEqual(stateAfter(400));
  });
});

describe("a directory", () => {
  it("is held by one of many that ask at the same time", async () => {
    const directory = fresh();
    for (let round = 0; round < 20; round++) {
      const asked = await Promise.allSettled(Array.from({ length: 8 }, () => holdDirectory(directory)));
      const held = asked.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
      expect(held.length).toBeLessThanOrEqual(1);
      for (const each of asked) if (each.status === "rejected") expect((each.reason as StorageError).kind).toBe("blocked");
      if (held.length === 0) continue;
      expect(await faultOf(holdDirectory(directory))).toBe("blocked");
      await held[0]!.release();
    }
    await (await holdDirectory(directory)).release();
    expect((await readdir(directory)).length).toBe(1);
  });

  it("is taken from a process that is gone, its number used again or not", async () => {
    const directory = fresh();
    await mkdir(directory, { recursive: true });
    for (const [number, holder] of [`999999999 x 1`, `${process.pid} another-boot 1`, "garbage", ""].entries()) {
      await writeFile(join(directory, `lock-${number * 10 + 5}`), holder);
      await (await holdDirectory(directory)).release();
    }
    expect(await readdir(directory)).toEqual(["lock-36"]);
  });

  it("is given free when the storage could not be opened", async () => {
    const directory = fresh();
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, "log"), "no log");
    const storage = fileStorage(directory);
    expect(await faultOf(storage.get("a"))).toBe("damaged");
    await rm(join(directory, "log"));
    expect(await storage.get("a")).toBeUndefined();
    expect(await faultOf(fileStorage(directory).get("a"))).toBe("blocked");
    await storage.close();
  });
});
