/**
 * The browser's storage: one IndexedDB database with one object store, keys as they are, values as byte arrays. It may use
 * IndexedDB and nothing else of the page. Each batch is one transaction, handed over with all its requests at once and told to commit: so it
 * is kept even if the page goes away before the answer. A connection that another page or the browser takes away is opened anew at the next call;
 * a call never waits for another page, it fails with `blocked`.
 */
import { StorageError, type Storage, type StorageFault, type StorageWrite } from "./storage.js";

/** What may be chosen. */
export interface IndexedDbOptions {
  /** How long opening may take before calls fail with `blocked`; it goes on in the background. */
  readonly openTimeoutMs?: number;
}

/** Keeps everything in the IndexedDB database `name`. All pages of the origin that name it share it. */
export function indexedDbStorage(name = "syncline", options: IndexedDbOptions = {}): Storage {
  return new IndexedDbStorage(new Connection(name, options));
}

class IndexedDbStorage implements Storage {
  readonly #connection: Connection;
  /** Transactions without an answer. */
  readonly #running = new Set<Promise<void>>();
  #closed = false;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    this.#check();
    const value = await this.#run("readonly", async (store) => result<unknown>(store.get(key)));
    return value === undefined ? undefined : bytes(key, value);
  }

  async list(prefix: string): Promise<Array<[key: string, value: Uint8Array]>> {
    this.#check();
    const range = rangeOf(prefix);
    const [keys, values] = await this.#run("readonly", (store) =>
      Promise.all([result<IDBValidKey[]>(store.getAllKeys(range)), result<unknown[]>(store.getAll(range))]),
    );
    return keys.map((key, index) => [String(key), bytes(String(key), values[index])]);
  }

  async write(batch: readonly StorageWrite[]): Promise<void> {
    this.#check();
    if (batch.length === 0) return;
    const running = this.#commit(batch.map((write) => ("put" in write ? { put: write.put, value: write.value.slice() } : write)));
    this.#running.add(running);
    try {
      await running;
    } finally {
      this.#running.delete(running);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.allSettled(this.#running);
    this.#connection.close();
  }

  #check(): void {
    if (this.#closed) throw new StorageError("unavailable", "the storage was closed; make a new one");
  }

  #commit(writes: readonly StorageWrite[]): Promise<void> {
    return this.#run("readwrite", async (store) => {
      for (const write of writes) {
        if ("put" in write) put(store, write.put, write.value);
        else store.delete(write.remove);
      }
      // A browser aborts what a page that goes away has left open.
      store.transaction.commit();
    });
  }

  /**
   * One transaction, over when it is on disk. If the connection went away under it, it is made once more on a new one: each
   * transaction is done as a whole or not at all, and the same writes twice are the same as once.
   */
  async #run<T>(mode: IDBTransactionMode, work: (store: IDBObjectStore) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const database = await this.#connection.open();
      try {
        return await transact(database, mode, work);
      } catch (error) {
        const fault = faultOf(error);
        const gone = fault.kind === "blocked";
        if (gone) this.#connection.lost(database);
        if (!gone || attempt === ATTEMPTS_MAX) throw fault;
      }
    }
  }
}

/** A connection that went away is opened anew this often within one call, less one. */
const ATTEMPTS_MAX = 2;

async function transact<T>(database: IDBDatabase, mode: IDBTransactionMode, work: (store: IDBObjectStore) => Promise<T>): Promise<T> {
  const transaction = database.transaction(STORE, mode, { durability: "strict" });
  const over = new Promise<void>((complete, failed) => {
    transaction.oncomplete = () => complete();
    transaction.onabort = () => failed(transaction.error ?? new DOMException("the transaction was aborted", "AbortError"));
  });
  let thrown: unknown;
  const done = work(transaction.objectStore(STORE)).catch((error: unknown) => {
    thrown = error;
    abort(transaction);
    return undefined;
  });
  try {
    const [value] = await Promise.all([done, over]);
    return value as T;
  } catch (error) {
    throw transaction.error ?? thrown ?? error;
  }
}

/** What failed inside a transaction must not let its other half be kept. */
function abort(transaction: IDBTransaction): void {
  try {
    transaction.abort();
  } catch {
    // It has aborted by itself.
  }
}

function put(store: IDBObjectStore, key: string, value: Uint8Array): void {
  try {
    store.put(value, key);
  } catch (error) {
    throw new StorageError("full", `the browser does not take a value of ${value.byteLength} bytes`, { cause: error });
  }
}

/** The one connection to the database, made when it is needed. */
class Connection {
  readonly #name: string;
  readonly #openTimeoutMs: number;
  #state: State = { at: "closed" };

  constructor(name: string, options: IndexedDbOptions) {
    this.#name = name;
    this.#openTimeoutMs = options.openTimeoutMs ?? OPEN_TIMEOUT_MS;
  }

  /** The open database. Fails with `blocked` for as long as another page keeps it from opening. */
  async open(): Promise<IDBDatabase> {
    switch (this.#state.at) {
      case "open":
      case "opening":
        return this.#state.database;
      case "closed":
        return this.#start();
      case "ended":
        throw new StorageError("unavailable", "the storage was closed; make a new one");
    }
  }

  /** The database turned out to be unusable: the next call opens it anew. */
  lost(database: IDBDatabase): void {
    database.close();
    if (this.#state.at === "open" && this.#state.database === database) this.#state = { at: "closed" };
  }

  close(): void {
    if (this.#state.at === "open") this.#state.database.close();
    this.#state = { at: "ended" };
  }

  #start(): Promise<IDBDatabase> {
    const request = openRequest(this.#name);
    const database = new Promise<IDBDatabase>((opened, failed) => {
      const hung = (): void => this.#hung(failed);
      const timer = setTimeout(hung, this.#openTimeoutMs);
      request.onblocked = hung;
      request.onupgradeneeded = () => request.result.createObjectStore(STORE);
      request.onsuccess = () => {
        clearTimeout(timer);
        this.#opened(request.result);
        opened(request.result);
      };
      request.onerror = () => {
        clearTimeout(timer);
        if (this.#state.at === "opening") this.#state = { at: "closed" };
        failed(faultOf(request.error));
      };
    });
    this.#state = { at: "opening", database };
    return database;
  }

  /** The request goes on; until it is answered nothing else may be opened, because that would only wait behind it. */
  #hung(failed: (fault: StorageError) => void): void {
    if (this.#state.at !== "opening") return;
    const fault = new StorageError("blocked", "another page keeps the database from opening; close the other pages or try again later");
    const database = Promise.reject<IDBDatabase>(fault);
    database.catch(() => undefined);
    this.#state = { at: "opening", database };
    failed(fault);
  }

  #opened(database: IDBDatabase): void {
    if (this.#state.at === "ended") {
      database.close();
      return;
    }
    this.#state = { at: "open", database };
    // Another page wants to change or delete the database: this page must not be what it waits for.
    database.onversionchange = () => this.lost(database);
    database.onclose = () => this.lost(database);
  }
}

type State =
  | { readonly at: "closed" }
  | { readonly at: "opening"; readonly database: Promise<IDBDatabase> }
  | { readonly at: "open"; readonly database: IDBDatabase }
  | { readonly at: "ended" };

const STORE = "entries";
const VERSION = 1;
/** Some browsers never answer while they shut down or restart; a slow disk answers in seconds. */
const OPEN_TIMEOUT_MS = 10_000;

/** Where a page may not store anything, IndexedDB is missing, or throws as soon as it is touched. */
function openRequest(name: string): IDBOpenDBRequest {
  try {
    const factory = globalThis.indexedDB as IDBFactory | undefined;
    if (factory === undefined) throw new Error("there is none");
    return factory.open(name, VERSION);
  } catch (error) {
    throw unavailable(error);
  }
}

function result<T>(request: IDBRequest): Promise<T> {
  return new Promise((success, failed) => {
    request.onsuccess = () => success(request.result as T);
    request.onerror = () => failed(request.error);
  });
}

/** All keys that begin with `prefix`: from itself up to the first text behind all of them. */
function rangeOf(prefix: string): IDBKeyRange | undefined {
  let head = prefix.length;
  while (head > 0 && prefix.charCodeAt(head - 1) === 0xffff) head--;
  if (head === 0) return prefix === "" ? undefined : IDBKeyRange.lowerBound(prefix);
  const behind = prefix.slice(0, head - 1) + String.fromCharCode(prefix.charCodeAt(head - 1) + 1);
  return IDBKeyRange.bound(prefix, behind, false, true);
}

function bytes(key: string, value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  throw new StorageError("damaged", `the entry ${JSON.stringify(key)} is not a byte array; something else wrote to this database`);
}

/** What a failure of IndexedDB means for the caller. */
function faultOf(error: unknown): StorageError {
  if (error instanceof StorageError) return error;
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  if (name === "QuotaExceededError" || /full disk/i.test(message)) {
    return new StorageError("full", "the browser gives this site no more space; free some or ask for persistent storage", { cause: error });
  }
  if (name === "VersionError") {
    return new StorageError("blocked", "a newer version of this application has changed the database; reload the page", { cause: error });
  }
  const kind = FAULTS[name];
  if (kind === "blocked") return new StorageError(kind, `the connection to the database was lost (${name}); try again`, { cause: error });
  if (kind === "damaged") return new StorageError(kind, `the browser cannot read the database (${message})`, { cause: error });
  return unavailable(error);
}

const FAULTS: Readonly<Record<string, StorageFault>> = {
  AbortError: "blocked",
  InvalidStateError: "blocked",
  TransactionInactiveError: "blocked",
  TimeoutError: "blocked",
  NotFoundError: "damaged",
  NotReadableError: "damaged",
  DataError: "damaged",
};

function unavailable(error: unknown): StorageError {
  const message = error instanceof Error ? error.message : String(error);
  return new StorageError("unavailable", `this page cannot use IndexedDB (${message}); a private window may not allow it`, { cause: error });
}
