/** Automerge's patches, as the editor takes them: whatever two people write, the editor shows what the document holds. */
import * as Automerge from "@automerge/automerge";
import { Text } from "@codemirror/state";
import { expect, test } from "vitest";
import { fromPatches } from "../src/binding";
import { EMPTY, type Board } from "../src/model";

type Doc = Automerge.Doc<Board>;

/** Numbers that look random and are the same each time. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((state / 2_147_483_648) * below);
  };
}

const PIECES = ["a", "bc", "\n", "\r\n", "😀", "line\nline", "ä"];

function write(doc: Doc, random: (below: number) => number): Doc {
  return Automerge.change(doc, (board) => {
    for (let count = random(4); count >= 0; count -= 1) {
      const at = random(board.text.length + 1);
      const gone = Math.min(random(3), board.text.length - at);
      Automerge.splice(board, ["text"], at, gone, PIECES[random(PIECES.length)]);
    }
  });
}

test("the patches of concurrent edits make the same text", () => {
  let [one, two] = [0, 1].map(() => Automerge.init<Board>()) as [Doc, Doc];
  one = Automerge.change(one, (board) => Object.assign(board, EMPTY));
  two = Automerge.merge(two, one);
  for (let seed = 1; seed <= 60; seed += 1) {
    const random = numbers(seed);
    one = write(one, random);
    two = write(two, random);
    const before = one.text;
    let patches: Automerge.Patch[] = [];
    [one] = Automerge.applyChanges(one, Automerge.getChanges(one, two), { patchCallback: (came) => (patches = came) });
    two = Automerge.merge(two, one);
    const changes = fromPatches(patches, before.length);
    expect(changes?.apply(Text.of(before.split("\n"))).toString(), `seed ${seed}`).toBe(one.text);
  }
});

test("patches of other places change nothing, and those that are no splices are left to a comparison", () => {
  expect(fromPatches([{ action: "put", path: ["cards", "a"], value: "x" }], 3)?.empty).toBe(true);
  expect(fromPatches([{ action: "put", path: ["text"], value: "" }], 3)).toBeUndefined();
  expect(fromPatches([{ action: "splice", path: ["text", 4], value: "x" }], 3)).toBeUndefined();
  expect(fromPatches([{ action: "del", path: ["text", 2], length: 2 }], 3)).toBeUndefined();
});
