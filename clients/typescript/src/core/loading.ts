/** The pieces of a document on their way in, inflated under one cap. */
import { Inflate } from "fflate";
import type { Part } from "../wire/messages.js";
import { joined } from "./kept.js";

/** A document that does not come in: it is too large, or its pieces are no deflate. */
export class LoadingError extends Error {
  override readonly name = "LoadingError";
}

/** The pieces so far. */
export class Loading {
  readonly #pieces: Uint8Array[] = [];
  #bytes = 0;

  /** Inflated bytes so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds a piece; all together at most `bytesMax`. */
  takeIn(part: Part, bytesMax: number): void {
    if (part.packing === "plain") this.#push(part.bytes, bytesMax);
    else this.#inflate(part.bytes, bytesMax);
  }

  /** All pieces: whole Automerge chunks, one behind another. */
  chunks(): Uint8Array {
    return joined(this.#pieces);
  }

  #inflate(packed: Uint8Array, bytesMax: number): void {
    const inflate = new Inflate((piece) => this.#push(piece, bytesMax));
    try {
      // In small steps, so that a bomb is stopped before it has gone off.
      for (let at = 0; at < packed.length; at += 4_096) {
        inflate.push(packed.subarray(at, at + 4_096), at + 4_096 >= packed.length);
      }
    } catch (error) {
      if (error instanceof LoadingError) throw error;
      throw new LoadingError("a part of the document cannot be inflated");
    }
  }

  #push(piece: Uint8Array, bytesMax: number): void {
    this.#bytes += piece.length;
    if (this.#bytes > bytesMax) {
      throw new LoadingError(`the document is larger than the ${bytesMax} bytes that this client takes`);
    }
    this.#pieces.push(piece);
  }
}
