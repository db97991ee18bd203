/**
 * Writes to the storage, in two queues. What only this page has goes first, one batch after another, in the order given. What
 * can come from the server again follows what was given before it, and may be overtaken by what comes later: so a replica that
 * is too large for the storage holds up no edit. What fails is tried again with all that came behind it in its queue, so nothing is
 * lost; who asked is told at the first failure, and again when it is stored after all.
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

export class Writer {
  readonly #first: Queue;
  readonly #later: Queue;

  constructor(storage: Storage, clock: Clock) {
    this.#first = new Queue(storage, clock, undefined);
    this.#later = new Queue(storage, clock, this.#first);
  }

  write(writes: readonly StorageWrite[], asker?: Asker): void {
    this.#first.add(writes, asker);
  }

  /** The same for what can come from the server again. */
  writeLater(writes: readonly StorageWrite[], asker?: Asker): void {
    this.#later.add(writes, asker);
  }

  /**
   * The page may be gone before the storage answers: what `give` writes is one batch with what waits for an answer, and handed
   * over at once.
   */
  atLast(give: () => void): void {
    this.#first.gather(give);
  }

  /** Resolves when nothing waits, or the storage does not take what waits. */
  async settled(): Promise<void> {
    await this.#first.settled();
    await this.#later.settled();
  }
}

interface Job {
  writes: readonly StorageWrite[];
  asker: Asker | undefined;
  told: boolean;
  begun: boolean;
}

class Queue {
  readonly #storage: Storage;
  readonly #clock: Clock;
  /** What was given to this queue before goes first. */
  readonly #ahead: Queue | undefined;
  #jobs: Job[] = [];
  #running = false;
  #gathers = false;
  #cancelRetry: (() => void) | undefined;
  #idle: Array<() => void> = [];

  constructor(storage: Storage, clock: Clock, ahead: Queue | undefined) {
    this.#storage = storage;
    this.#clock = clock;
    this.#ahead = ahead;
  }

  add(writes: readonly StorageWrite[], asker: Asker | undefined): void {
    this.#jobs.push({ writes, asker, told: false, begun: false });
    if (this.#cancelRetry !== undefined) this.#tell(new StorageError("unavailable", "the storage failed a moment ago"));
    void this.#run();
  }

  gather(give: () => void): void {
    this.#gathers = true;
    give();
    this.#gathers = false;
    void this.#run();
    const waiting = this.#jobs.filter(({ begun }) => !begun).flatMap(({ writes }) => writes);
    // It is written again in its turn, which changes nothing.
    if (waiting.length > 0) this.#storage.write(waiting).catch(() => undefined);
  }

  async settled(): Promise<void> {
    if (this.#jobs.length === 0 || this.#cancelRetry !== undefined) return;
    await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Resolves when all that is in the queue by now is stored. */
  passed(): Promise<void> | undefined {
    const last = this.#jobs.at(-1);
    if (last === undefined) return undefined;
    const { asker } = last;
    return new Promise((resolve) => {
      const stored = () => {
        resolve();
        asker?.stored();
      };
      last.asker = { stored, failed: (error) => asker?.failed(error) };
    });
  }

  async #run(): Promise<void> {
    if (this.#running || this.#gathers || this.#cancelRetry !== undefined) return;
    this.#running = true;
    while (this.#jobs.length > 0) {
      const jobs = [...this.#jobs];
      const impatient = this.#clock.after(PATIENCE_MS, () => {
        this.#tell(new StorageError("blocked", `the storage has not answered for ${PATIENCE_MS} ms`));
        this.#wake();
      });
      const passed = this.#ahead?.passed();
      if (passed !== undefined) await passed;
      for (const job of jobs) job.begun = true;
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
    begun: false,
    asker: {
      stored: () => askers.forEach(({ asker }) => asker?.stored()),
      failed: (error) => askers.forEach((each) => void (each.told || ((each.told = true), each.asker?.failed(error)))),
    },
  };
}
