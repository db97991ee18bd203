/**
 * How an empty document begins: one change that is the same bytes from every client. Its actor is drawn from its content, so
 * that apps that begin differently do not claim one change to be two.
 */
import * as A from "@automerge/automerge";
import { toHex } from "../wire/decode.js";

const MESSAGE = "initial";
const NOBODY = "00".repeat(16);

/** The chunk of the change that makes `value` out of nothing. */
export function initialChange(value: object): Uint8Array {
  const made = make(value, NOBODY);
  return make(value, contentActor(made));
}

function make(value: object, actor: string): Uint8Array {
  const doc = A.change(A.init<Record<string, unknown>>({ actor }), { time: 0, message: MESSAGE }, (writable) => {
    Object.assign(writable, sorted(value));
  });
  const change = A.getLastLocalChange(doc);
  if (change === undefined) throw new RangeError("`initial` has to hold something");
  return change;
}

/** Plain objects with their keys in one order. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object" || Object.getPrototypeOf(value) !== Object.prototype) return value;
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, field]) => [key, sorted(field)]));
}

/** Sixteen bytes drawn from bytes: four FNV-1a sums that begin differently. */
function contentActor(bytes: Uint8Array): string {
  const actor = new DataView(new ArrayBuffer(16));
  for (let word = 0; word < 4; word += 1) {
    let sum = 0x811c9dc5 ^ (word * 0x9e3779b9);
    for (const byte of bytes) sum = Math.imul(sum ^ byte, 0x01000193);
    actor.setUint32(word * 4, sum);
  }
  return toHex(new Uint8Array(actor.buffer));
}
