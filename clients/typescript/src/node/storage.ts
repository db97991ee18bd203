/**
 * The storage of Node: a directory with one log (`log.ts`) that one process holds at a time (`directory.ts`). Everything that
 * resolved is on disk and survives a kill or a power cut. Values stay on disk; keys are kept in memory.
 */
import { Groups } from "../storage/groups.js";
import { StorageError, type Storage, type StorageWrite } from "../storage/storage.js";
import { holdDirectory, type HeldDirectory } from "./directory.js";
import { codeOf, Log } from "./log.js";
import { entryBytes } from "./record.js";

/** Keeps everything in `directory`, which is made if it is missing. A second process, or a second storage, is told `blocked`. */
export function fileStorage(directory: string): Storage {
  return new FileStorage(directory);
}

class FileStorage implements Storage {
  readonly #directory: string;
  readonly #groups = new Groups((writes) => this.#commit(writes));
  #opening: Promise<Opened> | undefined;
  #closed = false;

  constructor(directory: string) {
    this.#directory = directory;
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    const { log } = await this.#open();
    return asFault(log.read(key));
  }

  async list(prefix: string): Promise<Array<[key: string, value: Uint8Array]>> {
    const { log } = await this.#open();
    const read = async (key: string): Promise<[string, Uint8Array]> => [key, (await log.read(key))!];
    // All are asked for in one turn, so that they are of one state.
    return asFault(Promise.all(log.keys(prefix).map(read)));
  }

  async write(batch: readonly StorageWrite[]): Promise<void> {
    this.#check();
    await this.#groups.write(batch);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#groups.idle();
    const opened = await this.#opening?.catch(() => undefined);
    this.#opening = undefined;
    if (opened === undefined) return;
    await opened.log.close();
    await opened.held.release().catch(() => undefined);
  }

  #check(): void {
    if (this.#closed) throw new StorageError("unavailable", "the storage was closed; make a new one");
  }

  async #commit(writes: readonly StorageWrite[]): Promise<void> {
    if (writes.reduce((sum, write) => sum + entryBytes(write), 0) > BATCH_BYTES_MAX) {
      throw new StorageError("full", `a batch may have ${BATCH_BYTES_MAX} bytes`);
    }
    const { log } = await this.#opened();
    await asFault(log.append(writes));
  }

  async #open(): Promise<Opened> {
    this.#check();
    const opened = await this.#opened();
    this.#check();
    return opened;
  }

  /** What failed is tried again at the next call: who blocked may be gone. */
  async #opened(): Promise<Opened> {
    this.#opening ??= asFault(openDirectory(this.#directory)).catch((error: unknown) => {
      this.#opening = undefined;
      throw error;
    });
    return this.#opening;
  }
}

interface Opened {
  readonly held: HeldDirectory;
  readonly log: Log;
}

/** What one record can hold and be read back at once. */
const BATCH_BYTES_MAX = 1024 * 1024 * 1024;

async function openDirectory(directory: string): Promise<Opened> {
  const held = await holdDirectory(directory);
  try {
    return { held, log: await Log.open(directory) };
  } catch (error) {
    await held.release();
    throw error;
  }
}

async function asFault<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    throw faultOf(error);
  }
}

/** What a failure of the file system means for the caller. */
function faultOf(error: unknown): StorageError {
  if (error instanceof StorageError) return error;
  const code = codeOf(error) ?? String(error);
  if (FULL.has(code)) return new StorageError("full", `there is no space left on the disk (${code}); free some and try again`, { cause: error });
  return new StorageError("unavailable", `the directory cannot be used (${code}); look at its permissions and its disk`, { cause: error });
}

const FULL: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);
