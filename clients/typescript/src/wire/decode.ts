/** Frames to messages. What breaks the protocol throws `Malformed`; nothing else is thrown. */
import { Malformed, Reader } from "./msgpack.js";
import {
  CAPABILITIES_MAX,
  DIFF_CHANGES_MAX,
  EDIT_CHANGES_MAX,
  ENTRIES_MAX,
  HEADS_MAX,
  LIMIT_NAMES,
  RUNS_MAX,
  isDocumentId,
  type ClientMessage,
  type Cursor,
  type Hash,
  type Limits,
  type PresenceEntry,
  type Run,
  type ServerMessage,
} from "./messages.js";

/** A frame of the server. Byte strings in the message are views of the frame. */
export function decodeServer(frame: Uint8Array): ServerMessage {
  return decode(frame, serverFields);
}

/** A frame of a client. */
export function decodeClient(frame: Uint8Array): ClientMessage {
  return decode(frame, clientFields);
}

type Fields<Message> = (number: number, reader: Reader) => [length: number, read: () => Message] | undefined;

function decode<Message>(frame: Uint8Array, fields: Fields<Message>): Message {
  const reader = new Reader(frame);
  const length = reader.array();
  if (length === 0) throw new Malformed("too_few_fields", "an array without a message number");
  const number = reader.number();
  const known = fields(number, reader);
  if (known === undefined) throw new Malformed("unknown_message", `there is no message ${number} in this direction`);
  const [count, read] = known;
  const message = structure(reader, length - 1, count, read);
  if (reader.left > 0) throw new Malformed("trailing_bytes", "bytes after the message");
  return message;
}

/** Reads the fields that are known and goes past the others ([M4]). */
function structure<T>(reader: Reader, length: number, count: number, read: () => T): T {
  if (length < count) throw new Malformed("too_few_fields", `${count} fields were expected, not ${length}`);
  const value = read();
  for (let more = length - count; more > 0; more -= 1) reader.skip();
  return value;
}

const serverFields: Fields<ServerMessage> = (number, r) => {
  switch (number) {
    case 16:
      return [3, () => ({ type: "welcome", session: r.number(), limits: limits(r), capabilities: list(r, CAPABILITIES_MAX, text) })];
    case 17:
      return [
        7,
        () => ({
          type: "opened",
          room: r.number(),
          document: documentId(r),
          access: choice(r, ["read", "write"]),
          heads: list(r, HEADS_MAX, hash),
          cursor: cursor(r),
          base: choice(r, ["replica", "nothing"]),
          bytes: r.number(),
        }),
      ];
    case 18:
      return [
        4,
        () => ({
          type: "part",
          room: r.number(),
          packing: choice(r, ["plain", "deflate"]),
          bytes: r.bytes(),
          end: r.nil() ? null : cursor(r),
        }),
      ];
    case 19:
      return [3, () => ({ type: "diff", room: r.number(), cursor: cursor(r), runs: runs(r) })];
    case 20:
      return [3, () => ({ type: "ack", room: r.number(), id: r.number(), cursor: cursor(r) })];
    case 21:
      return [4, () => ({ type: "reject", room: r.number(), id: r.number(), code: r.text(), text: r.text() })];
    case 22:
      return [2, () => ({ type: "presence", room: r.number(), entries: list(r, ENTRIES_MAX, entry) })];
    case 23:
      return [3, () => ({ type: "signal", room: r.number(), session: r.number(), payload: r.bytes() })];
    case 24:
      return [
        4,
        () => ({
          type: "closed",
          room: r.nil() ? null : r.number(),
          document: documentId(r),
          code: r.text(),
          text: r.text(),
        }),
      ];
    case 25:
      return [1, () => ({ type: "retry", after_ms: r.number() })];
    case 26:
      return [2, () => ({ type: "error", code: r.number(65_535), text: r.text() })];
    default:
      return undefined;
  }
};

const clientFields: Fields<ClientMessage> = (number, r) => {
  switch (number) {
    case 1:
      return [
        4,
        () => ({
          type: "hello",
          version: r.number(),
          token: r.nil() ? null : r.text(),
          client: r.text(),
          capabilities: list(r, CAPABILITIES_MAX, text),
        }),
      ];
    case 2:
      return [1, () => ({ type: "auth", token: r.text() })];
    case 3:
      return [
        3,
        () => ({
          type: "open",
          document: documentId(r),
          cursor: r.nil() ? null : cursor(r),
          heads: list(r, HEADS_MAX, hash),
        }),
      ];
    case 4:
      return [3, () => ({ type: "edit", room: r.number(), id: r.number(), changes: list(r, EDIT_CHANGES_MAX, bytes) })];
    case 5:
      return [2, () => ({ type: "presence", room: r.number(), state: r.nil() ? null : r.bytes() })];
    case 6:
      return [2, () => ({ type: "signal", room: r.number(), payload: r.bytes() })];
    case 7:
      return [1, () => ({ type: "leave", room: r.number() })];
    default:
      return undefined;
  }
};

function list<T>(reader: Reader, max: number, read: (reader: Reader) => T): T[] {
  const length = reader.array(max);
  const values: T[] = [];
  for (let index = 0; index < length; index += 1) values.push(read(reader));
  return values;
}

const text = (reader: Reader): string => reader.text();
const bytes = (reader: Reader): Uint8Array => reader.bytes();

function cursor(reader: Reader): Cursor {
  return structure(reader, reader.array(), 2, () => [reader.number(), reader.number()]);
}

function hash(reader: Reader): Hash {
  const found = reader.bytes();
  if (found.length !== 32) throw new Malformed("bad_hash", "a hash has 32 bytes");
  return toHex(found);
}

function documentId(reader: Reader): string {
  const found = reader.text();
  if (!isDocumentId(found)) throw new Malformed("bad_document_id", "a text is not a document id");
  return found;
}

function choice<T>(reader: Reader, meanings: readonly T[]): T {
  const number = reader.number();
  const meaning = meanings[number];
  if (meaning === undefined) throw new Malformed("unknown_value", `${number} has no meaning here`);
  return meaning;
}

function runs(reader: Reader): Run[] {
  let changes = 0;
  return list(reader, RUNS_MAX, () =>
    structure(reader, reader.array(), 2, () => {
      const session = reader.number();
      const run = { session, changes: list(reader, DIFF_CHANGES_MAX - changes, bytes) };
      changes += run.changes.length;
      return run;
    }),
  );
}

function entry(reader: Reader): PresenceEntry {
  return structure(reader, reader.array(), 4, () => ({
    session: reader.number(),
    subject: reader.text(),
    name: reader.nil() ? null : reader.text(),
    state: reader.nil() ? null : reader.bytes(),
  }));
}

function limits(reader: Reader): Limits {
  const found: Record<string, number> = Object.fromEntries(LIMIT_NAMES.map((name) => [name, 0]));
  for (let left = reader.map(); left > 0; left -= 1) {
    const name = reader.text();
    if (Object.hasOwn(found, name)) found[name] = reader.number();
    else reader.skip();
  }
  return found as unknown as Limits;
}

/** Bytes in hexadecimal digits. */
export function toHex(bytes: Uint8Array): string {
  let hex = "";
  for (const byte of bytes) hex += byte.toString(16).padStart(2, "0");
  return hex;
}

/** Hexadecimal digits as bytes. */
export function fromHex(hex: string): Uint8Array {
  const bytes = new Uint8Array(hex.length / 2);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = Number.parseInt(hex.slice(at * 2, at * 2 + 2), 16);
  return bytes;
}
