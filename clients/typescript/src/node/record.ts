/**
 * Records: how a batch of writes lies in a log. Bytes in, bytes out; no file is touched here.
 *
 * A record is a header of 20 bytes (payload's length: 4, the record's number: 8, the payload's CRC-32: 4, the CRC-32 of these 16
 * bytes: 4) and the payload: for each write its kind (1: put, 0: remove), the key's length in bytes (4) and the key in UTF-16, and
 * for a put the value's length (4), its CRC-32 (4) and the value. Numbers are big-endian.
 */
import { crc32 } from "node:zlib";
import type { StorageWrite } from "../storage/storage.js";

/** How many bytes stand before a payload. */
export const HEADER_BYTES = 20;

/** What a header says. */
export interface Header {
  readonly payloadBytes: number;
  /** Records of a log are numbered from 0 without a gap. */
  readonly number: number;
  readonly payloadCrc: number;
}

/** A write as it is found in a payload: a value is only pointed at. */
export type Entry = { readonly put: string; readonly place: Place } | { readonly remove: string };

/** Where a value lies. */
export interface Place {
  /** Counted from the start of whatever the record was read from. */
  readonly offset: number;
  readonly bytes: number;
  readonly crc: number;
}

/** The record of `writes`, and where in it each of them lies. */
export function encodeRecord(number: number, writes: readonly StorageWrite[]): { record: Buffer; entries: Entry[] } {
  const payloadBytes = writes.reduce((sum, write) => sum + entryBytes(write), 0);
  const record = Buffer.allocUnsafe(HEADER_BYTES + payloadBytes);
  const entries: Entry[] = [];
  let at = HEADER_BYTES;
  for (const write of writes) {
    const key = Buffer.from("put" in write ? write.put : write.remove, "utf16le");
    at = record.writeUInt8("put" in write ? 1 : 0, at);
    at = record.writeUInt32BE(key.length, at);
    at += key.copy(record, at);
    if (!("put" in write)) {
      entries.push(write);
      continue;
    }
    const place = { offset: at + 8, bytes: write.value.length, crc: crc32(write.value) };
    at = record.writeUInt32BE(place.bytes, at);
    at = record.writeUInt32BE(place.crc, at);
    record.set(write.value, at);
    at += place.bytes;
    entries.push({ put: write.put, place });
  }
  record.writeUInt32BE(payloadBytes, 0);
  record.writeBigUInt64BE(BigInt(number), 4);
  record.writeUInt32BE(crc32(record.subarray(HEADER_BYTES)), 12);
  record.writeUInt32BE(crc32(record.subarray(0, 16)), 16);
  return { record, entries };
}

/** The header that the first bytes are; undefined if they are none. */
export function decodeHeader(bytes: Buffer): Header | undefined {
  if (bytes.length < HEADER_BYTES || crc32(bytes.subarray(0, 16)) !== bytes.readUInt32BE(16)) return undefined;
  return { payloadBytes: bytes.readUInt32BE(0), number: Number(bytes.readBigUInt64BE(4)), payloadCrc: bytes.readUInt32BE(12) };
}

/** The entries of a payload that lies at `offset`; undefined if it is not the one that the header speaks of. */
export function decodePayload(header: Header, payload: Buffer, offset: number): Entry[] | undefined {
  if (payload.length !== header.payloadBytes || crc32(payload) !== header.payloadCrc) return undefined;
  const entries: Entry[] = [];
  for (let at = 0; at < payload.length; ) {
    const put = payload.readUInt8(at) === 1;
    const keyBytes = payload.readUInt32BE(at + 1);
    const key = payload.toString("utf16le", at + 5, at + 5 + keyBytes);
    at += 5 + keyBytes;
    if (!put) {
      entries.push({ remove: key });
      continue;
    }
    const bytes = payload.readUInt32BE(at);
    entries.push({ put: key, place: { offset: offset + at + 8, bytes, crc: payload.readUInt32BE(at + 4) } });
    at += 8 + bytes;
  }
  return entries;
}

/** How many bytes a write takes in a payload. */
export function entryBytes(write: StorageWrite): number {
  return "put" in write ? 13 + 2 * write.put.length + write.value.length : 5 + 2 * write.remove.length;
}
