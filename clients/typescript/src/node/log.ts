/**
 * The one file of a storage on disk: records, one after another, each synced before the next is written. It may use files and
 * nothing else. A record counts once it is whole; what a crash left of the last one is cut off. A broken record with whole ones
 * behind it is no trace of a crash, and is never skipped: the log does not open.
 */
import { open, rename, rm, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { StorageError, type StorageWrite } from "../storage/storage.js";
import { decodeHeader, decodePayload, encodeRecord, entryBytes, HEADER_BYTES, type Entry, type Place } from "./record.js";

/** An open log. Appends and rewrites are made one at a time, by the caller; reads at any time. */
export class Log {
  readonly #directory: string;
  #file: FileHandle;
  #places = new Map<string, Place>();
  #next = 0;
  #end = MAGIC.length;
  #liveBytes = 0;
  #rewriteAt = REWRITE_BYTES_MIN;
  #broken: StorageError | undefined;

  private constructor(directory: string, file: FileHandle) {
    this.#directory = directory;
    this.#file = file;
  }

  /** Opens the log of a directory, or begins one. */
  static async open(directory: string): Promise<Log> {
    const path = join(directory, LOG);
    await rm(join(directory, NEXT), { force: true });
    const file = await open(path, "r+").catch((error: unknown) => {
      if (codeOf(error) !== "ENOENT") throw error;
      return begin(directory);
    });
    const log = new Log(directory, file);
    try {
      await log.#recover();
    } catch (error) {
      await file.close();
      throw error;
    }
    return log;
  }

  /** All keys, in order. */
  keys(prefix: string): string[] {
    return [...this.#places.keys()].filter((key) => key.startsWith(prefix)).sort();
  }

  /** The value of a key, held against its checksum. */
  async read(key: string): Promise<Uint8Array | undefined> {
    const place = this.#places.get(key);
    if (place === undefined) return undefined;
    const value = new Uint8Array(place.bytes);
    // Nothing may come between looking the place up and asking for it: a rewrite gives both anew.
    const got = await readFully(this.#file, value, place.offset);
    if (got !== place.bytes || crc32(value) !== place.crc) throw damaged(`the value of ${JSON.stringify(key)} does not fit its checksum`);
    return value;
  }

  /** Makes the writes last, all or none. */
  async append(writes: readonly StorageWrite[]): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    if (this.#end >= this.#rewriteAt) await this.#rewriteIfWorth();
    const { record, entries } = encodeRecord(this.#next, writes);
    try {
      await writeFully(this.#file, record, this.#end);
      await this.#file.datasync();
    } catch (error) {
      await this.#cutBack();
      throw error;
    }
    for (const entry of entries) this.#apply(entry, this.#end);
    this.#end += record.length;
    this.#next++;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /** Takes back what a failed append may have left. If that fails too, nobody knows what the disk holds: nothing more is written. */
  async #cutBack(): Promise<void> {
    try {
      await this.#file.truncate(this.#end);
      await this.#file.datasync();
    } catch (error) {
      this.#broken = new StorageError("unavailable", "the disk failed; look after it, then make a new storage", { cause: error });
    }
  }

  #apply(entry: Entry, recordAt: number): void {
    const key = "put" in entry ? entry.put : entry.remove;
    const former = this.#places.get(key);
    if (former !== undefined) this.#liveBytes -= cost(key, former.bytes);
    if ("put" in entry) {
      const { offset, bytes, crc } = entry.place;
      this.#places.set(key, { offset: recordAt + offset, bytes, crc });
      this.#liveBytes += cost(key, bytes);
    } else {
      this.#places.delete(key);
    }
  }

  async #recover(): Promise<void> {
    const magic = Buffer.alloc(MAGIC.length);
    if ((await readFully(this.#file, magic, 0)) !== MAGIC.length || !magic.equals(MAGIC)) {
      throw damaged(`${join(this.#directory, LOG)} is not a log of this version`);
    }
    // What a killed process wrote and did not sync is built on from here.
    await this.#file.datasync();
    const { size } = await this.#file.stat();
    while (this.#end < size) {
      const found = await readRecord(this.#file, this.#end, size);
      if (found === undefined || found.number !== this.#next) return this.#endsTorn(size);
      for (const entry of found.entries) this.#apply(entry, this.#end);
      this.#end += found.bytes;
      this.#next++;
    }
  }

  async #endsTorn(size: number): Promise<void> {
    const behind = await findRecord(this.#file, this.#end, size, this.#next);
    if (behind !== undefined) {
      throw damaged(`the record at byte ${this.#end} of ${join(this.#directory, LOG)} is broken, and there are whole ones behind it`);
    }
    await this.#file.truncate(this.#end);
    await this.#file.datasync();
  }

  /** Writes a log of what is live, once more than half of it is not. A failure costs nothing: the former log goes on. */
  async #rewriteIfWorth(): Promise<void> {
    if (this.#end < 2 * this.#liveBytes) {
      this.#rewriteAt = 2 * this.#liveBytes;
      return;
    }
    try {
      await this.#rewrite();
      this.#rewriteAt = Math.max(REWRITE_BYTES_MIN, 2 * this.#end);
    } catch {
      if (this.#broken !== undefined) throw this.#broken;
      this.#rewriteAt = 2 * this.#end;
    }
  }

  async #rewrite(): Promise<void> {
    const path = join(this.#directory, NEXT);
    const fresh = new Log(this.#directory, await open(path, "wx+", MODE));
    try {
      await writeFully(fresh.#file, MAGIC, 0);
      let writes: StorageWrite[] = [];
      let bytes = 0;
      for (const key of this.#places.keys()) {
        const write = { put: key, value: (await this.read(key))! };
        writes.push(write);
        bytes += entryBytes(write);
        if (bytes < REWRITE_RECORD_BYTES) continue;
        await fresh.#appendUnsynced(writes);
        [writes, bytes] = [[], 0];
      }
      if (writes.length > 0) await fresh.#appendUnsynced(writes);
      await fresh.#file.datasync();
    } catch (error) {
      await fresh.close();
      await rm(path, { force: true });
      throw error;
    }
    await this.#replaceBy(fresh);
  }

  async #appendUnsynced(writes: readonly StorageWrite[]): Promise<void> {
    const { record, entries } = encodeRecord(this.#next, writes);
    await writeFully(this.#file, record, this.#end);
    for (const entry of entries) this.#apply(entry, this.#end);
    this.#end += record.length;
    this.#next++;
  }

  async #replaceBy(fresh: Log): Promise<void> {
    try {
      await rename(join(this.#directory, NEXT), join(this.#directory, LOG));
      await syncDirectory(this.#directory);
    } catch (error) {
      await fresh.close();
      this.#broken = new StorageError("unavailable", "the disk failed; look after it, then make a new storage", { cause: error });
      throw error;
    }
    const former = this.#file;
    [this.#file, this.#places, this.#next, this.#end, this.#liveBytes] = [fresh.#file, fresh.#places, fresh.#next, fresh.#end, fresh.#liveBytes];
    // Reads that are under way are waited for.
    await former.close();
  }
}

const LOG = "log";
const NEXT = "log.next";
const MAGIC = Buffer.from("syncline storage 1\n");
/** Only the user's own. */
const MODE = 0o600;
/** A smaller log is never written anew. */
const REWRITE_BYTES_MIN = 1024 * 1024;
/** About how large the records of a log that was written anew are, but for larger values. */
const REWRITE_RECORD_BYTES = 1024 * 1024;

/** What a value costs in a log that was written anew. */
function cost(key: string, valueBytes: number): number {
  return 13 + 2 * key.length + valueBytes;
}

/** A log is there with its first line, or not at all. */
async function begin(directory: string): Promise<FileHandle> {
  const file = await open(join(directory, NEXT), "wx+", MODE);
  try {
    await writeFully(file, MAGIC, 0);
    await file.datasync();
    await rename(join(directory, NEXT), join(directory, LOG));
    await syncDirectory(directory);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

interface Found {
  readonly number: number;
  readonly entries: Entry[];
  readonly bytes: number;
}

/** The whole record at `offset`, with places counted from its start. */
async function readRecord(file: FileHandle, offset: number, size: number): Promise<Found | undefined> {
  const head = Buffer.alloc(Math.min(HEADER_BYTES, size - offset));
  await readFully(file, head, offset);
  const header = decodeHeader(head);
  if (header === undefined || offset + HEADER_BYTES + header.payloadBytes > size) return undefined;
  const payload = Buffer.allocUnsafe(header.payloadBytes);
  await readFully(file, payload, offset + HEADER_BYTES);
  const entries = decodePayload(header, payload, HEADER_BYTES);
  return entries && { number: header.number, entries, bytes: HEADER_BYTES + header.payloadBytes };
}

/** Where the first whole record at or after `from` begins that comes after the one with the number `broken`. */
async function findRecord(file: FileHandle, from: number, size: number, broken: number): Promise<number | undefined> {
  const window = Buffer.alloc(SEARCH_BYTES + HEADER_BYTES - 1);
  for (let base = from; base < size; base += SEARCH_BYTES) {
    const got = await readFully(file, window, base);
    for (let at = 0; at < SEARCH_BYTES && at + HEADER_BYTES <= got; at++) {
      const header = decodeHeader(window.subarray(at, at + HEADER_BYTES));
      if (header === undefined || header.number <= broken) continue;
      if ((await readRecord(file, base + at, size)) !== undefined) return base + at;
    }
  }
  return undefined;
}

const SEARCH_BYTES = 64 * 1024;

async function readFully(file: FileHandle, into: Uint8Array, offset: number): Promise<number> {
  let got = 0;
  while (got < into.length) {
    const { bytesRead } = await file.read(into, got, into.length - got, offset + got);
    if (bytesRead === 0) break;
    got += bytesRead;
  }
  return got;
}

async function writeFully(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}

/** Windows has no such thing; a rename is kept there without it. */
async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** The system's name of an error, as `ENOSPC`. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
}

function damaged(what: string): StorageError {
  return new StorageError("damaged", `${what}; the file is left as it is`);
}
