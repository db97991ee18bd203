/**
 * Gathers the batches that wait for a slow disk, so that one commit serves all of them. It may use nothing but the contract of
 * storages; it never reorders batches, and never tells one that it is kept before its commit has said so. A batch that fails takes
 * all that wait behind it along, because they may build on it.
 */
import { StorageError, type StorageWrite } from "./storage.js";

/** Makes writes last, all or nothing. Rejects with a `StorageError` when it has done nothing. */
export type Commit = (writes: readonly StorageWrite[]) => Promise<void>;

/** The batches on their way to a disk. */
export class Groups {
  readonly #commit: Commit;
  #waiting: Waiting[] = [];
  #waitingBytes = 0;
  #running: Promise<void> | undefined;

  constructor(commit: Commit) {
    this.#commit = commit;
  }

  /** Resolves when the batch is kept. Too much at once is refused with `blocked`. */
  write(batch: readonly StorageWrite[]): Promise<void> {
    if (batch.length === 0) return this.idle();
    const bytes = bytesOf(batch);
    if (this.#waiting.length >= WAITING_MAX || (this.#waiting.length > 0 && this.#waitingBytes + bytes > WAITING_BYTES_MAX)) {
      return Promise.reject(new StorageError("blocked", "the disk does not keep up with what is written; try again later"));
    }
    return new Promise((kept, failed) => {
      this.#waiting.push({ writes: batch.map(copied), kept, failed });
      this.#waitingBytes += bytes;
      this.#running ??= this.#run();
    });
  }

  /** Resolves when nothing is waiting any more. */
  async idle(): Promise<void> {
    while (this.#running !== undefined) await this.#running;
  }

  async #run(): Promise<void> {
    // The batches of this turn of the event loop come along.
    await Promise.resolve();
    while (this.#waiting.length > 0) {
      const group = this.#take();
      const failure = await this.#settle(group);
      if (failure !== undefined) for (const waiting of this.#take()) waiting.failed(failure.error);
    }
    this.#running = undefined;
  }

  /** Commits all as one, or, when there is no space for all, one by one up to the first that does not fit. */
  async #settle(group: readonly Waiting[]): Promise<Failure | undefined> {
    let failure = await this.#attempt(group);
    let kept = failure === undefined ? group.length : 0;
    if (group.length > 1 && failure?.error instanceof StorageError && failure.error.kind === "full") {
      for (kept = 0; kept < group.length; kept++) {
        failure = await this.#attempt(group.slice(kept, kept + 1));
        if (failure !== undefined) break;
      }
    }
    for (const waiting of group.slice(0, kept)) waiting.kept();
    for (const waiting of group.slice(kept)) waiting.failed(failure?.error);
    return failure;
  }

  async #attempt(group: readonly Waiting[]): Promise<Failure | undefined> {
    try {
      await this.#commit(group.flatMap((waiting) => waiting.writes));
      return undefined;
    } catch (error) {
      return { error };
    }
  }

  #take(): readonly Waiting[] {
    const taken = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    return taken;
  }
}

/** How many batches may wait while a commit runs. */
const WAITING_MAX = 10_000;
/** And how many bytes, but for a batch that comes when none waits. */
const WAITING_BYTES_MAX = 64 * 1024 * 1024;

interface Failure {
  readonly error: unknown;
}

interface Waiting {
  readonly writes: readonly StorageWrite[];
  readonly kept: () => void;
  readonly failed: (error: unknown) => void;
}

function bytesOf(batch: readonly StorageWrite[]): number {
  return batch.reduce((sum, write) => sum + ("put" in write ? write.put.length + write.value.byteLength : write.remove.length), 0);
}

/** The caller may change its values afterwards, and a view into a large buffer would be stored with the whole of it. */
function copied(write: StorageWrite): StorageWrite {
  return "put" in write ? { put: write.put, value: write.value.slice() } : write;
}
