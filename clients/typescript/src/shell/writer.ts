/**
 * Writes to the storage, one batch after another, in the order given. What fails is tried again with all that came behind it,
 * so nothing is lost or overtaken; who asked is told at the first failure, and again when it is stored after all.
 */
import { StorageError, type Storage, type StorageWrite } from "../storage/storage.js";
import type { Clock } from "./clock.js";

/** A storage that has not answered for so long is called blocked. */
const PATIENCE_MS = 5_000;
const RETRY_MS = 5_000;

/** Who hears what became of a batch. */
export interface Asker {
  stored(): void;
  failed(error: unknown): void;
}

interface Job {
  writes: readonly StorageWrite[];
  asker: Asker | undefined;
  told: boolean;
}

export class Writer {
  readonly #storage: Storage;
  readonly #clock: Clock;
  #jobs: Job[] = [];
  #running = false;
  #cancelRetry: (() => void) | undefined;
  #idle: Array<() => void> = [];

  constructor(storage: Storage, clock: Clock) {
    this.#storage = storage;
    this.#clock = clock;
  }

  write(writes: readonly StorageWrite[], asker?: Asker): void {
    this.#jobs.push({ writes, asker, told: false });
    if (this.#cancelRetry !== undefined) this.#tell(new StorageError("unavailable", "the storage failed a moment ago"));
    void this.#run();
  }

  /** Resolves when nothing waits, or the storage does not take what waits. */
  async settled(): Promise<void> {
    if (this.#jobs.length === 0 || this.#cancelRetry !== undefined) return;
    await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  async #run(): Promise<void> {
    if (this.#running || this.#cancelRetry !== undefined) return;
    this.#running = true;
    while (this.#jobs.length > 0) {
      const jobs = [...this.#jobs];
      const impatient = this.#clock.after(PATIENCE_MS, () => {
        this.#tell(new StorageError("blocked", `the storage has not answered for ${PATIENCE_MS} ms`));
        this.#wake();
      });
      try {
        await this.#storage.write(jobs.flatMap(({ writes }) => writes));
      } catch (error) {
        impatient();
        this.#failed(error);
        break;
      }
      impatient();
      this.#jobs = this.#jobs.slice(jobs.length);
      for (const { asker } of jobs) asker?.stored();
    }
    this.#running = false;
    this.#wake();
  }

  #failed(error: unknown): void {
    this.#jobs = [merged(this.#jobs)];
    this.#cancelRetry = this.#clock.after(RETRY_MS, () => {
      this.#cancelRetry = undefined;
      void this.#run();
    });
    this.#tell(error);
  }

  #tell(error: unknown): void {
    const news = this.#jobs.filter(({ told }) => !told);
    for (const job of news) job.told = true;
    for (const { asker } of news) asker?.failed(error);
  }

  #wake(): void {
    const idle = this.#idle;
    this.#idle = [];
    for (const resolve of idle) resolve();
  }
}

/** Many batches as one; of the writes to one key the last one counts. */
function merged(jobs: readonly Job[]): Job {
  const byKey = new Map<string, StorageWrite>();
  for (const write of jobs.flatMap(({ writes }) => writes)) {
    const key = "put" in write ? write.put : write.remove;
    byKey.delete(key);
    byKey.set(key, write);
  }
  const askers = jobs.map(({ asker, told }) => ({ asker, told }));
  return {
    writes: [...byKey.values()],
    told: askers.every(({ told }) => told),
    asker: {
      stored: () => askers.forEach(({ asker }) => asker?.stored()),
      failed: (error) => askers.forEach((each) => void (each.told || ((each.told = true), each.asker?.failed(error)))),
    },
  };
}
