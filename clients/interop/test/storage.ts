/** A storage adapter that forgets when the process ends. */
import type { StorageAdapterInterface, StorageKey } from "@automerge/automerge-repo";

/** Makes one. */
export function memory(): StorageAdapterInterface {
  const kept = new Map<string, { key: StorageKey; data: Uint8Array }>();
  const below = (prefix: StorageKey) => [...kept.values()].filter(({ key }) => prefix.every((part, n) => key[n] === part));
  return {
    load: async (key) => kept.get(key.join("/"))?.data,
    save: async (key, data) => void kept.set(key.join("/"), { key, data }),
    remove: async (key) => void kept.delete(key.join("/")),
    loadRange: async (prefix) => below(prefix),
    removeRange: async (prefix) => below(prefix).forEach(({ key }) => kept.delete(key.join("/"))),
  };
}
