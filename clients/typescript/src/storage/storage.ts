/**
 * Where replicas and queues are kept between page loads. The contract of all storages is here, and `test/storage/contract.ts`
 * proves it. A storage knows neither documents nor Automerge: it maps text keys to bytes.
 */

/** An ordered map from text keys to bytes. Keys are compared by UTF-16 code units, as JavaScript compares texts. */
export interface Storage {
  /** The value of a key, or undefined. The bytes are the caller's own. */
  get(key: string): Promise<Uint8Array | undefined>;
  /** All entries whose key begins with `prefix`, in key order. */
  list(prefix: string): Promise<Array<[key: string, value: Uint8Array]>>;
  /** All or nothing, in the order given, and kept once it has resolved. The values may be changed by the caller afterwards. */
  write(batch: readonly StorageWrite[]): Promise<void>;
  /** Lets go of what the storage holds open. Afterwards every call fails with `unavailable`. */
  close(): Promise<void>;
}

/** One entry put, or one removed; removing what is not there is no error. */
export type StorageWrite = { readonly put: string; readonly value: Uint8Array } | { readonly remove: string };

/**
 * Why a storage did not do what it was asked.
 * - `full`: there is no space; what was stored before is untouched.
 * - `blocked`: another page or process holds it; trying again later may help.
 * - `unavailable`: there is no such storage here, or it was closed.
 * - `damaged`: what is stored cannot be read.
 */
export type StorageFault = "full" | "blocked" | "unavailable" | "damaged";

/** The only error that a storage rejects with. */
export class StorageError extends Error {
  override readonly name = "StorageError";
  readonly kind: StorageFault;

  constructor(kind: StorageFault, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}
