/** The shared vectors: the same bytes as the Rust codec. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { decodeClient, decodeServer, fromHex, toHex } from "../../src/wire/decode.js";
import { encodeClient, encodeServer } from "../../src/wire/encode.js";
import type { ClientMessage, ServerMessage } from "../../src/wire/messages.js";
import { Malformed } from "../../src/wire/msgpack.js";

interface Vector {
  readonly name: string;
  readonly from?: "client" | "server";
  readonly message?: Record<string, unknown>;
  readonly error?: string;
  readonly hex: string;
}

const vectors = (file: string): Vector[] =>
  JSON.parse(readFileSync(new URL(`../../../../protocol/vectors/${file}.json`, import.meta.url), "utf8")) as Vector[];

const frame = (vector: Vector) => fromHex(vector.hex.replaceAll(" ", ""));

const byteFields = new Set(["bytes", "state", "payload"]);

/** A message with byte strings as hexadecimal texts, as the vectors have it. */
function shown(value: unknown): unknown {
  if (value instanceof Uint8Array) return toHex(value);
  if (Array.isArray(value)) return value.map(shown);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, shown(field)]));
}

/** The reverse of `shown`, by the names of the fields. */
function meant(value: unknown, name = ""): unknown {
  if (Array.isArray(value)) return value.map((element) => (name === "changes" ? fromHex(element as string) : meant(element)));
  if (typeof value === "string") return byteFields.has(name) ? fromHex(value) : value;
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, meant(field, key)]));
}

describe("m1_m10_every_message_has_one_encoding", () => {
  it.each(vectors("client").map((vector) => [vector.name, vector] as const))("client: %s", (_, vector) => {
    expect(shown(decodeClient(frame(vector)))).toEqual(vector.message);
    expect(toHex(encodeClient(meant(vector.message) as ClientMessage))).toBe(toHex(frame(vector)));
  });

  it.each(vectors("server").map((vector) => [vector.name, vector] as const))("server: %s", (_, vector) => {
    expect(shown(decodeServer(frame(vector)))).toEqual(vector.message);
    expect(toHex(encodeServer(meant(vector.message) as ServerMessage))).toBe(toHex(frame(vector)));
  });
});

const decoder = (vector: Vector) => (vector.from === "client" ? decodeClient : decodeServer);

describe("m3_m4_m5_readers_are_lenient", () => {
  it.each(vectors("lenient").map((vector) => [vector.name, vector] as const))("%s", (_, vector) => {
    expect(shown(decoder(vector)(frame(vector)))).toEqual(vector.message);
  });
});

describe("m2_m6_m7_m8_malformed_frames_are_named", () => {
  it.each(vectors("malformed").map((vector) => [`${vector.from}: ${vector.name}`, vector] as const))("%s", (_, vector) => {
    let error: unknown;
    try {
      decoder(vector)(frame(vector));
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(Malformed);
    expect((error as Malformed).kind).toBe(vector.error);
  });

  it("every beginning of a frame is truncated, and no random frame does more than throw Malformed", () => {
    for (const vector of vectors("server")) {
      const whole = frame(vector);
      for (let length = 0; length < whole.length; length += 1) {
        expect(() => decodeServer(whole.subarray(0, length))).toThrow(Malformed);
      }
    }
    let seed = 7;
    for (let round = 0; round < 20_000; round += 1) {
      const bytes = new Uint8Array(24).map(() => (seed = (seed * 48_271) % 0x7fffffff) & 0xff);
      bytes.set([0x98, 16 + (round % 11)]);
      try {
        decodeServer(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(Malformed);
      }
    }
  });
});
