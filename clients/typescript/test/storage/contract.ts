/** What every storage must do. An implementation's test calls `storageContract` with a way to make empty storages. */
import { describe, expect, it } from "vitest";
import { StorageError, type Storage } from "../../src/storage/storage.js";

/** A storage under test. `reopen` gives the same data as a new page would find it; undefined if nothing outlives the page. */
export interface StorageUnderTest {
  readonly storage: Storage;
  readonly reopen?: () => Promise<Storage>;
}

/** Runs the contract. `make` gives a storage with nothing in it, every time. */
export function storageContract(name: string, make: () => Promise<StorageUnderTest>): void {
  const bytes = (...values: number[]) => new Uint8Array(values);
  const keys = async (storage: Storage, prefix: string) => (await storage.list(prefix)).map(([key]) => key);

  describe(`storage contract: ${name}`, () => {
    it("gives what was put, and undefined for what was not", async () => {
      const { storage } = await make();
      await storage.write([
        { put: "a", value: bytes(1, 2) },
        { put: "empty", value: bytes() },
      ]);
      expect(await storage.get("a")).toEqual(bytes(1, 2));
      expect(await storage.get("empty")).toEqual(bytes());
      expect(await storage.get("b")).toBeUndefined();
      await storage.close();
    });

    it("does the writes of a batch in order", async () => {
      const { storage } = await make();
      await storage.write([{ put: "a", value: bytes(1) }]);
      await storage.write([{ put: "a", value: bytes(2) }, { remove: "a" }, { put: "a", value: bytes(3) }, { remove: "b" }]);
      expect(await storage.get("a")).toEqual(bytes(3));
      await storage.write([{ put: "b", value: bytes(4) }, { remove: "b" }]);
      expect(await storage.get("b")).toBeUndefined();
      await storage.write([]);
      await storage.close();
    });

    it("lists by prefix in the order of code units, and nothing beside the prefix", async () => {
      const { storage } = await make();
      const names = ["d/a", "d/a/1", "d/a/10", "d/a/2", "d/é", "d/😀", "d/\uffff", "d/A", "d/a-b", "d0", "c/z", "d"];
      await storage.write(names.map((put) => ({ put, value: bytes(put.length) })));
      expect(await keys(storage, "")).toEqual([...names].sort());
      expect(await keys(storage, "d/")).toEqual(names.filter((key) => key.startsWith("d/")).sort());
      expect(await keys(storage, "d/a/")).toEqual(["d/a/1", "d/a/10", "d/a/2"]);
      expect(await keys(storage, "x")).toEqual([]);
      expect(await storage.list("d0")).toEqual([["d0", bytes(2)]]);
      await storage.close();
    });

    it("keeps its own copies", async () => {
      const { storage } = await make();
      const large = new Uint8Array(10);
      const view = large.subarray(2, 4);
      view.set([7, 8]);
      await storage.write([{ put: "a", value: view }]);
      large.fill(0);
      const given = await storage.get("a");
      expect(given).toEqual(bytes(7, 8));
      given?.fill(9);
      (await storage.list("a"))[0]?.[1].fill(9);
      expect(await storage.get("a")).toEqual(bytes(7, 8));
      await storage.close();
    });

    it("takes large values and many entries", async () => {
      const { storage } = await make();
      const large = new Uint8Array(3_000_000).map((_, index) => index % 251);
      await storage.write([{ put: "large", value: large }]);
      const many = Array.from({ length: 1_000 }, (_, index) => String(index).padStart(4, "0"));
      await storage.write(many.map((key) => ({ put: `n/${key}`, value: bytes(Number(key) % 256) })));
      const given = await storage.get("large");
      expect(given?.length === large.length && large.every((byte, at) => given[at] === byte)).toBe(true);
      expect(await keys(storage, "n/")).toEqual(many.map((key) => `n/${key}`));
      await storage.close();
    });

    it("takes writes at the same time, one batch after another", async () => {
      const { storage } = await make();
      const batches = Array.from({ length: 20 }, (_, index) =>
        storage.write([{ put: "last", value: bytes(index) }, { put: `each/${index}`, value: bytes(index) }]),
      );
      await Promise.all(batches);
      expect(await storage.get("last")).toEqual(bytes(19));
      expect(await keys(storage, "each/")).toHaveLength(20);
      await storage.close();
    });

    it("fails with `unavailable` once closed", async () => {
      const { storage } = await make();
      await storage.close();
      for (const call of [() => storage.get("a"), () => storage.list(""), () => storage.write([{ remove: "a" }])]) {
        const error = await call().catch((error: unknown) => error);
        expect(error).toBeInstanceOf(StorageError);
        expect((error as StorageError).kind).toBe("unavailable");
      }
    });

    it("keeps what it was given for the next page", async () => {
      const { storage, reopen } = await make();
      if (reopen === undefined) return;
      await storage.write([{ put: "a", value: bytes(1) }, { put: "b/😀", value: bytes(2) }]);
      await storage.write([{ remove: "a" }]);
      await storage.close();
      const again = await reopen();
      expect(await again.list("")).toEqual([["b/😀", bytes(2)]]);
      await again.close();
    });
  });
}
