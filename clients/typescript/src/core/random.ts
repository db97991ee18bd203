/** The core's own randomness: actors, ids and jitter from one seed. The same seed gives the same run. Not for secrets. */

/** An sfc32 generator. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** `seed` has at least 12 random bytes. */
  constructor(seed: Uint8Array) {
    const view = new DataView(seed.buffer, seed.byteOffset, seed.byteLength);
    this.#a = view.getUint32(0);
    this.#b = view.getUint32(4);
    this.#c = view.getUint32(8);
    for (let round = 0; round < 12; round += 1) this.number();
  }

  /** A whole number of 32 bits. */
  number(): number {
    const drawn = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + drawn;
    return drawn >>> 0;
  }

  /** Between half of `delayMs` and all of it. */
  jitter(delayMs: number): number {
    const half = Math.floor(delayMs / 2);
    return half + (this.number() % (delayMs - half + 1));
  }

  /** Sixteen random bytes in hexadecimal digits: an actor, a page or a draft. */
  id(): string {
    let hex = "";
    for (let word = 0; word < 4; word += 1) hex += this.number().toString(16).padStart(8, "0");
    return hex;
  }
}
