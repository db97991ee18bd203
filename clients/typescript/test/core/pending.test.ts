import * as A from "@automerge/automerge";
import { describe, expect, it } from "vitest";
import { PendingChanges, type Pending } from "../../src/core/pending.js";
import { contentOf } from "../../src/core/replica.js";

const chunkOf = (text: string): Uint8Array => A.getLastLocalChange(A.from({ text }))!;

function pendingOf(chunk: Uint8Array, change: Partial<Pending> = {}): Pending {
  const rest = { origin: "own", key: "k", page: "", user: null, remade: false, stored: "yes", sent: false, edit: undefined, serial: 1 } as const;
  return { ...contentOf(chunk), ...rest, ...change };
}

describe("pending changes", () => {
  it("find the change that a chunk is", () => {
    const pending = new PendingChanges();
    const [mine, other] = [pendingOf(chunkOf("mine")), chunkOf("other")];
    pending.add(mine);
    expect(pending.matching(mine.bytes.slice())).toBe(mine);
    expect(pending.matching(other)).toBeUndefined();
    expect(pending.matching(new Uint8Array(3))).toBeUndefined();
  });

  it("do not take another change with the same checksum for their own", () => {
    const pending = new PendingChanges();
    const theirs = chunkOf("theirs");
    const hash = contentOf(theirs).hash.slice(0, 8) + "0".repeat(56);
    pending.add(pendingOf(chunkOf("mine"), { hash }));
    expect(pending.matching(theirs)).toBeUndefined();
    expect(pending.mine).toBe(1);
  });

  it("know a change in its other form", () => {
    const pending = new PendingChanges();
    const chunk = chunkOf("a".repeat(2_000));
    const mine = pendingOf(chunk, { bytes: new Uint8Array([1, 2, 3]) });
    pending.add(mine);
    expect(pending.matching(chunk)).toBe(mine);
  });
});
