/** A part of a storage, apart from all others: its keys stand behind a prefix of their own. It may use nothing but the contract of storages. */
import type { Storage } from "./storage.js";

/** What `storage` has under `prefix`. Closing it closes the whole. */
export function scopedStorage(storage: Storage, prefix: string): Storage {
  return {
    get: (key) => storage.get(prefix + key),
    list: async (under) => (await storage.list(prefix + under)).map(([key, value]) => [key.slice(prefix.length), value]),
    write: (batch) =>
      storage.write(batch.map((write) => ("put" in write ? { ...write, put: prefix + write.put } : { remove: prefix + write.remove }))),
    close: () => storage.close(),
  };
}
