/**
 * The storage that the pages of an origin share, on a disk that is slow, fails now and then, and whose pages crash: what a page
 * wrote last is then there as a whole or not at all.
 */
import { StorageError, type Storage, type StorageWrite } from "../../src/storage/storage.js";
import type { Dice } from "./dice.js";

/** One page's way to the disk. */
export interface PageDisk extends Storage {
  /** The page is gone: nothing is answered any more. */
  crash(): void;
}

/** What all pages share. */
export class Disk {
  readonly entries = new Map<string, Uint8Array>();
  /** How many of a hundred writes fail. */
  faultPercent = 0;
  readonly #dice: Dice;

  constructor(dice: Dice) {
    this.#dice = dice;
  }

  page(): PageDisk {
    let gone = false;
    let last: Promise<unknown> = Promise.resolve();
    const never = new Promise<never>(() => undefined);
    const answered = async <T>(work: () => T): Promise<T> => {
      await this.#pause();
      if (gone) return never;
      const value = work();
      await this.#pause();
      return gone ? never : value;
    };
    const inOrder = <T>(work: () => T): Promise<T> => {
      const done = last.then(() => answered(work));
      last = done.catch(() => undefined);
      return done;
    };
    return {
      get: (key) => answered(() => this.entries.get(key)?.slice()),
      list: (prefix) => answered(() => this.#list(prefix)),
      write: (batch) => {
        const copy = batch.map((write) => ("put" in write ? { put: write.put, value: write.value.slice() } : write));
        return inOrder(() => this.#write(copy));
      },
      close: () => inOrder(() => undefined),
      crash: () => {
        gone = true;
      },
    };
  }

  #pause(): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, this.#dice.below(20)));
  }

  #list(prefix: string): Array<[string, Uint8Array]> {
    const keys = [...this.entries.keys()].filter((key) => key.startsWith(prefix)).sort();
    return keys.map((key) => [key, this.entries.get(key)!.slice()]);
  }

  #write(batch: readonly StorageWrite[]): void {
    if (this.#dice.below(100) < this.faultPercent) throw new StorageError("full", "the disk is full for a moment");
    for (const write of batch) {
      if ("put" in write) this.entries.set(write.put, write.value);
      else this.entries.delete(write.remove);
    }
  }
}
