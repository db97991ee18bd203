/**
 * MessagePack as far as the protocol uses it: numbers, texts, byte strings, arrays, maps, nil. A reader takes every form of a
 * value and allocates by what is there, never by what a length claims; a writer uses the shortest form. Knows no messages.
 */

/** Why a frame is malformed. The kinds are those of `protocol/vectors/README.md`. */
export type MalformedKind =
  | "truncated"
  | "wrong_type"
  | "out_of_range"
  | "unknown_value"
  | "bad_utf8"
  | "bad_document_id"
  | "bad_hash"
  | "too_few_fields"
  | "list_too_long"
  | "too_deep"
  | "unknown_message"
  | "trailing_bytes";

/** A frame that breaks the protocol. */
export class Malformed extends Error {
  override readonly name = "Malformed";
  readonly kind: MalformedKind;

  constructor(kind: MalformedKind, message: string) {
    super(message);
    this.kind = kind;
  }
}

/** How deep a skipped value may nest. */
const DEPTH_MAX = 32;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const utf8Writer = new TextEncoder();

/** Reads values from front to back. */
export class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  /** A number between 0 and `max`, in any integer form. */
  number(max: number = Number.MAX_SAFE_INTEGER): number {
    const value = this.#integer(this.#marker());
    if (value === undefined) throw new Malformed("wrong_type", "a number was expected");
    if (value < 0 || value > max) throw new Malformed("out_of_range", `a number between 0 and ${max} was expected`);
    return value;
  }

  text(): string {
    const length = this.#textLength(this.#marker());
    if (length === undefined) throw new Malformed("wrong_type", "a text was expected");
    return this.#utf8(this.#take(length));
  }

  /** A byte string; a view of the frame. */
  bytes(): Uint8Array {
    const length = this.#bytesLength(this.#marker());
    if (length === undefined) throw new Malformed("wrong_type", "a byte string was expected");
    return this.#take(length);
  }

  /** The length of an array that follows. */
  array(max: number = Number.MAX_SAFE_INTEGER): number {
    const length = this.#arrayLength(this.#marker());
    if (length === undefined) throw new Malformed("wrong_type", "an array was expected");
    this.#claims(length);
    if (length > max) throw new Malformed("list_too_long", `a list of at most ${max} was expected`);
    return length;
  }

  /** The number of entries of a map that follows. */
  map(): number {
    const length = this.#mapLength(this.#marker());
    if (length === undefined) throw new Malformed("wrong_type", "a map was expected");
    this.#claims(length * 2);
    return length;
  }

  /** Whether nil comes next; it is taken then. */
  nil(): boolean {
    if (this.left === 0) throw new Malformed("truncated", "the frame ends before a value");
    if (this.#bytes[this.#at] !== 0xc0) return false;
    this.#at += 1;
    return true;
  }

  /** Goes past one value of any type. An array or map, an empty one too, is a level. */
  skip(depth: number = DEPTH_MAX): void {
    const marker = this.#marker();
    const elements = this.#arrayLength(marker) ?? times2(this.#mapLength(marker));
    if (elements !== undefined) {
      if (depth === 0) throw new Malformed("too_deep", `a value nests deeper than ${DEPTH_MAX} levels`);
      for (let left = elements; left > 0; left -= 1) this.skip(depth - 1);
      return;
    }
    const text = this.#textLength(marker);
    if (text !== undefined) {
      this.#take(text);
      return;
    }
    this.#take(this.#bytesLength(marker) ?? this.#fixedLength(marker));
  }

  /** An element has at least one byte. */
  #claims(elements: number): void {
    if (elements > this.left) throw new Malformed("truncated", "a length claims more elements than the frame has left");
  }

  #marker(): number {
    return this.#take(1)[0]!;
  }

  #take(length: number): Uint8Array {
    if (length > this.left) throw new Malformed("truncated", "a value claims more bytes than the frame has left");
    const taken = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return taken;
  }

  #unsigned(bytes: 1 | 2 | 4 | 8): number {
    const at = this.#at;
    this.#take(bytes);
    if (bytes === 1) return this.#view.getUint8(at);
    if (bytes === 2) return this.#view.getUint16(at);
    if (bytes === 4) return this.#view.getUint32(at);
    return Number(this.#view.getBigUint64(at));
  }

  #integer(marker: number): number | undefined {
    if (marker <= 0x7f) return marker;
    if (marker >= 0xe0) return marker - 0x100;
    if (marker >= 0xcc && marker <= 0xcf) return this.#unsigned((1 << (marker - 0xcc)) as 1 | 2 | 4 | 8);
    if (marker < 0xd0 || marker > 0xd3) return undefined;
    const at = this.#at;
    this.#take(1 << (marker - 0xd0));
    if (marker === 0xd0) return this.#view.getInt8(at);
    if (marker === 0xd1) return this.#view.getInt16(at);
    if (marker === 0xd2) return this.#view.getInt32(at);
    return Number(this.#view.getBigInt64(at));
  }

  #textLength(marker: number): number | undefined {
    if (marker >= 0xa0 && marker <= 0xbf) return marker & 0x1f;
    return this.#lengthFrom(marker, 0xd9, [1, 2, 4]);
  }

  #bytesLength(marker: number): number | undefined {
    return this.#lengthFrom(marker, 0xc4, [1, 2, 4]);
  }

  #arrayLength(marker: number): number | undefined {
    if (marker >= 0x90 && marker <= 0x9f) return marker & 0x0f;
    return this.#lengthFrom(marker, 0xdc, [2, 4]);
  }

  #mapLength(marker: number): number | undefined {
    if (marker >= 0x80 && marker <= 0x8f) return marker & 0x0f;
    return this.#lengthFrom(marker, 0xde, [2, 4]);
  }

  #lengthFrom(marker: number, first: number, sizes: ReadonlyArray<1 | 2 | 4>): number | undefined {
    const size = sizes[marker - first];
    return size === undefined ? undefined : this.#unsigned(size);
  }

  /** The payload bytes of nil, booleans, numbers and extensions. */
  #fixedLength(marker: number): number {
    if (marker <= 0x7f || marker >= 0xe0) return 0;
    if (marker === 0xc0 || marker === 0xc2 || marker === 0xc3) return 0;
    if (marker === 0xca) return 4;
    if (marker === 0xcb) return 8;
    if (marker >= 0xcc && marker <= 0xcf) return 1 << (marker - 0xcc);
    if (marker >= 0xd0 && marker <= 0xd3) return 1 << (marker - 0xd0);
    if (marker >= 0xd4 && marker <= 0xd8) return 1 + (1 << (marker - 0xd4));
    const extension = this.#lengthFrom(marker, 0xc7, [1, 2, 4]);
    if (extension === undefined) throw new Malformed("wrong_type", "this is no MessagePack value");
    return extension + 1;
  }

  #utf8(bytes: Uint8Array): string {
    try {
      return utf8.decode(bytes);
    } catch {
      throw new Malformed("bad_utf8", "a text is not UTF-8");
    }
  }
}

function times2(count: number | undefined): number | undefined {
  return count === undefined ? undefined : count * 2;
}

/** Writes values one after another, each in its shortest form. */
export class Writer {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;

  /** What was written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#at);
  }

  nil(): this {
    return this.#byte(0xc0);
  }

  /** A whole number from 0 to 2^53 - 1. */
  number(value: number): this {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} is not a number of the protocol`);
    if (value <= 0x7f) return this.#byte(value);
    return this.#sized(value, 0xcc, [1, 2, 4, 8]);
  }

  text(value: string): this {
    const bytes = utf8Writer.encode(value);
    if (bytes.length <= 0x1f) this.#byte(0xa0 | bytes.length);
    else this.#sized(bytes.length, 0xd9, [1, 2, 4]);
    return this.raw(bytes);
  }

  bytes(value: Uint8Array): this {
    return this.#sized(value.length, 0xc4, [1, 2, 4]).raw(value);
  }

  array(length: number): this {
    return length <= 0x0f ? this.#byte(0x90 | length) : this.#sized(length, 0xdc, [2, 4]);
  }

  map(length: number): this {
    return length <= 0x0f ? this.#byte(0x80 | length) : this.#sized(length, 0xde, [2, 4]);
  }

  /** Bytes as they are. */
  raw(bytes: Uint8Array): this {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
    return this;
  }

  #byte(value: number): this {
    this.#room(1);
    this.#bytes[this.#at] = value;
    this.#at += 1;
    return this;
  }

  /** A marker that tells the size of the number behind it, which is the smallest of `sizes` that holds it. */
  #sized(value: number, first: number, sizes: readonly number[]): this {
    const index = sizes.findIndex((size) => value < 2 ** (8 * size));
    const size = sizes[index]!;
    this.#byte(first + index);
    this.#room(size);
    if (size === 1) this.#view.setUint8(this.#at, value);
    else if (size === 2) this.#view.setUint16(this.#at, value);
    else if (size === 4) this.#view.setUint32(this.#at, value);
    else this.#view.setBigUint64(this.#at, BigInt(value));
    this.#at += size;
    return this;
  }

  #room(more: number): void {
    if (this.#at + more <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#at + more));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}
