/** A storage that lives as long as the page: for tests, and for apps that keep nothing. */
import { StorageError, type Storage, type StorageWrite } from "./storage.js";

/** Keeps everything in memory. */
export function memoryStorage(): Storage {
  return new MemoryStorage();
}

class MemoryStorage implements Storage {
  readonly #entries = new Map<string, Uint8Array>();
  #closed = false;

  async get(key: string): Promise<Uint8Array | undefined> {
    this.#check();
    return this.#entries.get(key)?.slice();
  }

  async list(prefix: string): Promise<Array<[key: string, value: Uint8Array]>> {
    this.#check();
    const keys = [...this.#entries.keys()].filter((key) => key.startsWith(prefix)).sort();
    return keys.map((key) => [key, this.#entries.get(key)!.slice()]);
  }

  async write(batch: readonly StorageWrite[]): Promise<void> {
    this.#check();
    for (const write of batch) {
      if ("put" in write) this.#entries.set(write.put, write.value.slice());
      else this.#entries.delete(write.remove);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #check(): void {
    if (this.#closed) throw new StorageError("unavailable", "the storage was closed; make a new one");
  }
}
