import { describe, expect, it } from "vitest";
import { Groups } from "../../src/storage/groups.js";
import { StorageError, type StorageWrite } from "../../src/storage/storage.js";

const put = (key: string, size = 1): StorageWrite => ({ put: key, value: new Uint8Array(size) });
const keys = (writes: readonly StorageWrite[]): string[] => writes.map((write) => ("put" in write ? write.put : write.remove));

/** Commits that are answered by the test, one after another. */
function disk() {
  const commits: Array<{ keys: string[]; kept(): void; failed(error: unknown): void }> = [];
  let arrived = (): void => undefined;
  const groups = new Groups(
    (writes) =>
      new Promise((kept, failed) => {
        commits.push({ keys: keys(writes), kept, failed });
        arrived();
      }),
  );
  const next = async () => {
    if (commits.length === 0) await new Promise<void>((resolve) => (arrived = resolve));
    return commits.shift()!;
  };
  return { groups, next };
}

const kindOf = async (promise: Promise<void>): Promise<string> =>
  promise.then(
    () => "kept",
    (error: unknown) => (error instanceof StorageError ? error.kind : String(error)),
  );

describe("groups of batches", () => {
  it("commits what gathered meanwhile as one, in order", async () => {
    const { groups, next } = disk();
    const first = groups.write([put("a")]);
    (await next()).kept();
    await first;
    const second = groups.write([put("b")]);
    const commit = await next();
    const behind = [groups.write([put("c")]), groups.write([{ remove: "b" }, put("d")])];
    expect(commit.keys).toEqual(["b"]);
    commit.kept();
    await second;
    const gathered = await next();
    expect(gathered.keys).toEqual(["c", "b", "d"]);
    gathered.kept();
    await Promise.all(behind);
    await groups.idle();
  });

  it("keeps those that fit when there is no space for all, and fails what came after the first that does not", async () => {
    const { groups, next } = disk();
    const kinds = Promise.all(["a", "b", "c"].map((key) => kindOf(groups.write([put(key)]))));
    const all = await next();
    expect(all.keys).toEqual(["a", "b", "c"]);
    all.failed(new StorageError("full", "no space"));
    (await next()).kept();
    const second = await next();
    const behind = kindOf(groups.write([put("d")]));
    second.failed(new StorageError("full", "no space"));
    expect(await kinds).toEqual(["kept", "full", "full"]);
    expect(await behind).toBe("full");
    const later = groups.write([put("e")]);
    (await next()).kept();
    await later;
  });

  it("refuses what the disk cannot keep up with, and goes on", async () => {
    const { groups, next } = disk();
    const running = groups.write([put("a")]);
    const commit = await next();
    const large = groups.write([put("large", 65 * 1024 * 1024)]);
    expect(await kindOf(groups.write([put("b")]))).toBe("blocked");
    commit.kept();
    (await next()).kept();
    await Promise.all([running, large]);
    const after = groups.write([put("b")]);
    (await next()).kept();
    await after;
  });
});
