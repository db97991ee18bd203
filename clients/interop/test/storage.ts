/** A storage adapter that forgets when the process ends. */
import type { StorageAdapterInterface, StorageKey } from "@automerge/automerge-repo";

/** Makes one with this storage id: a repo asks for it twice at its start, and would make two. */
export function memory(id: string): StorageAdapterInterface {
  const named = { key: ["storage-adapter-id"], data: new TextEncoder().encode(id) };
  const kept = new Map<string, { key: StorageKey; data: Uint8Array }>([["storage-adapter-id", named]]);
  const below = (prefix: StorageKey) => [...kept.values()].filter(({ key }) => prefix.every((part, n) => key[n] === part));
  return {
    load: async (key) => kept.get(key.join("/"))?.data,
    save: async (key, data) => void kept.set(key.join("/"), { key, data }),
    remove: async (key) => void kept.delete(key.join("/")),
    loadRange: async (prefix) => below(prefix),
    removeRange: async (prefix) => below(prefix).forEach(({ key }) => kept.delete(key.join("/"))),
  };
}
