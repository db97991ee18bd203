/** Numbered batches that overwrite each other, and what a storage holds after the first n of them. */
import type { StorageWrite } from "../../src/storage/storage.js";

/** The key of the last batch's number. */
export const COUNT = "count";

/** Batch number `number`, counted from 1. */
export function batchOf(number: number): StorageWrite[] {
  const slot = String(number % SLOTS).padStart(2, "0");
  return [
    { put: COUNT, value: numbered(number, 4) },
    { put: `a/${slot}`, value: numbered(number, 4 + ((number * 7919) % 20_000)) },
    { put: `b/${slot}`, value: numbered(number, 4) },
    { remove: `only/${number - 1}` },
    { put: `only/${number}`, value: numbered(number, 4) },
  ];
}

/** All entries after batches 1 to `number`, as `readable` gives them. */
export function stateAfter(number: number): Array<[string, string]> {
  const state = new Map<string, Uint8Array>();
  for (let each = Math.max(1, number - SLOTS + 1); each <= number; each++) {
    for (const write of batchOf(each)) {
      if ("put" in write) state.set(write.put, write.value);
      else state.delete(write.remove);
    }
  }
  return readable([...state].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Entries with values that a test runner compares quickly. */
export function readable(entries: ReadonlyArray<[string, Uint8Array]>): Array<[string, string]> {
  return entries.map(([key, value]) => [key, Buffer.from(value).toString("base64")]);
}

/** The number that a value carries; 0 for none. */
export function numberOf(value: Uint8Array | undefined): number {
  return value === undefined ? 0 : new DataView(value.buffer, value.byteOffset).getUint32(0);
}

const SLOTS = 50;

function numbered(number: number, bytes: number): Uint8Array {
  const value = new Uint8Array(bytes).fill(number % 251);
  new DataView(value.buffer).setUint32(0, number);
  return value;
}
