import "fake-indexeddb/auto";
import { afterEach, describe, expect, it, vi } from "vitest";
import { indexedDbStorage } from "../../src/storage/indexeddb.js";
import { StorageError, type Storage } from "../../src/storage/storage.js";
import { storageContract } from "./contract.js";

let made = 0;
const freshName = (): string => `storage ${made++}`;

storageContract("IndexedDB", async () => {
  const name = freshName();
  return { storage: indexedDbStorage(name), reopen: async () => indexedDbStorage(name) };
});

const bytes = (...values: number[]): Uint8Array => new Uint8Array(values);

async function faultOf(promise: Promise<unknown>): Promise<StorageError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(StorageError);
  return error as StorageError;
}

function answer<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** The next `times` puts abort their transaction as a browser does. */
function abortPuts(name: string, times: number): void {
  const put = IDBObjectStore.prototype.put;
  let left = times;
  vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(function (this: IDBObjectStore, value: unknown, key?: IDBValidKey) {
    const request = put.call(this, value, key);
    if (left-- > 0) (this.transaction as unknown as { _abort(name: string): void })._abort(name);
    return request;
  });
}

/** Every later `transaction` fails as on a connection that the browser has closed. */
function breakConnections(times: number): void {
  const transaction = IDBDatabase.prototype.transaction;
  let left = times;
  vi.spyOn(IDBDatabase.prototype, "transaction").mockImplementation(function (this: IDBDatabase, ...call) {
    if (left-- > 0) throw new DOMException("The database connection is closing.", "InvalidStateError");
    return transaction.apply(this, call);
  });
}

async function filled(): Promise<{ name: string; storage: Storage }> {
  const name = freshName();
  const storage = indexedDbStorage(name);
  await storage.write([{ put: "before", value: bytes(1) }]);
  return { name, storage };
}

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

describe("IndexedDB that is full", () => {
  it("fails with `full`, keeps what was there, and goes on when there is space", async () => {
    const { storage } = await filled();
    abortPuts("QuotaExceededError", 1);
    expect((await faultOf(storage.write([{ remove: "before" }, { put: "a", value: bytes(2) }]))).kind).toBe("full");
    expect(await storage.list("")).toEqual([["before", bytes(1)]]);
    await storage.write([{ put: "a", value: bytes(2) }]);
    expect(await storage.get("a")).toEqual(bytes(2));
  });

  it("takes none of a batch with a value that the browser refuses at once", async () => {
    const { storage } = await filled();
    const put = IDBObjectStore.prototype.put;
    vi.spyOn(IDBObjectStore.prototype, "put").mockImplementation(function (this: IDBObjectStore, value: unknown, key?: IDBValidKey) {
      if (key === "huge") throw new DOMException("Maximum IPC message size exceeded.", "DataError");
      return put.call(this, value, key);
    });
    const batch = [{ put: "a", value: bytes(2) }, { put: "huge", value: bytes(3) }];
    expect((await faultOf(storage.write(batch))).kind).toBe("full");
    expect(await storage.list("")).toEqual([["before", bytes(1)]]);
  });
});

describe("IndexedDB that goes away", () => {
  it("is opened anew when the connection was closed", async () => {
    const { storage } = await filled();
    breakConnections(1);
    await storage.write([{ put: "a", value: bytes(2) }]);
    expect(await storage.list("")).toEqual([["a", bytes(2)], ["before", bytes(1)]]);
  });

  it("makes a transaction that was cut off once more, as a whole", async () => {
    const { storage } = await filled();
    abortPuts("AbortError", 1);
    await storage.write([{ put: "a", value: bytes(2) }, { put: "b", value: bytes(3) }]);
    expect((await storage.list("")).map(([key]) => key)).toEqual(["a", "b", "before"]);
  });

  it("fails with `blocked` when it goes away again, and works later", async () => {
    const { storage } = await filled();
    breakConnections(2);
    expect((await faultOf(storage.write([{ put: "a", value: bytes(2) }]))).kind).toBe("blocked");
    await storage.write([{ put: "a", value: bytes(2) }]);
    expect(await storage.get("a")).toEqual(bytes(2));
  });

  it("lets another page delete the database, and begins anew", async () => {
    const { name, storage } = await filled();
    await answer(indexedDB.deleteDatabase(name));
    expect(await storage.get("before")).toBeUndefined();
    await storage.write([{ put: "a", value: bytes(2) }]);
    expect(await storage.get("a")).toEqual(bytes(2));
  });

  it("lets another page change the database, and says that the page is too old", async () => {
    const { name, storage } = await filled();
    const newer = await answer(indexedDB.open(name, 2));
    const fault = await faultOf(storage.write([{ put: "a", value: bytes(2) }]));
    expect(fault.kind).toBe("blocked");
    expect(fault.message).toContain("reload");
    const store = newer.transaction("entries").objectStore("entries");
    expect(await answer(store.getAllKeys())).toEqual(["before"]);
    newer.close();
  });

  it("fails with `blocked` while another page keeps it from opening, and works when that is over", async () => {
    const { name, storage } = await filled();
    await storage.close();
    const holder = await answer(indexedDB.open(name, 1));
    const deletion = indexedDB.deleteDatabase(name);
    const deleted = answer(deletion);
    await new Promise((resolve) => (deletion.onblocked = resolve));
    const again = indexedDbStorage(name, { openTimeoutMs: 20 });
    expect((await faultOf(again.get("before"))).kind).toBe("blocked");
    expect((await faultOf(again.write([{ put: "a", value: bytes(2) }]))).kind).toBe("blocked");
    holder.close();
    await deleted;
    await vi.waitFor(() => again.write([{ put: "a", value: bytes(2) }]), { timeout: 120_000 });
    expect(await again.list("")).toEqual([["a", bytes(2)]]);
    await again.close();
  });
});

describe("IndexedDB that is not to be had", () => {
  it("fails with `unavailable` where there is none", async () => {
    vi.stubGlobal("indexedDB", undefined);
    expect((await faultOf(indexedDbStorage().get("a"))).kind).toBe("unavailable");
  });

  it("fails with `unavailable` where it may not be touched", async () => {
    const open = (): never => {
      throw new DOMException("The operation is insecure.", "SecurityError");
    };
    vi.stubGlobal("indexedDB", { open });
    const storage = indexedDbStorage();
    expect((await faultOf(storage.write([{ put: "a", value: bytes(1) }]))).kind).toBe("unavailable");
    vi.unstubAllGlobals();
    await storage.write([{ put: "a", value: bytes(1) }]);
    expect(await storage.get("a")).toEqual(bytes(1));
    await storage.close();
  });

  it("fails with `damaged` on what it has not written", async () => {
    const { name, storage } = await filled();
    const other = await answer(indexedDB.open(name, 1));
    await answer(other.transaction("entries", "readwrite").objectStore("entries").put("a text", "odd"));
    other.close();
    expect((await faultOf(storage.get("odd"))).kind).toBe("damaged");
    expect((await faultOf(storage.list("o"))).kind).toBe("damaged");
    expect(await storage.get("before")).toEqual(bytes(1));
  });
});
