/** Automerge's patches, as the editor takes them: whatever two people write, the editor shows what the document holds. */
import * as Automerge from "@automerge/automerge";
import { EditorState, Text, type TransactionSpec } from "@codemirror/state";
import type { EditorView } from "@codemirror/view";
import { Client, type Change, type DocHandle } from "@syncline/client";
import { expect, test, vi } from "vitest";
import { TestServer } from "../../typescript/test/server/server";
import { bindText, fromPatches, inChanges } from "../src/binding";
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

test("what is pasted or deleted beyond what one change may hold is written in several, and cuts no character", () => {
  const long = `a${"😀".repeat(60_000)}\nb`;
  const first = EditorState.create({ doc: "xyz", extensions: EditorState.lineSeparator.of("\n") });
  const paste = first.update({ changes: { from: 1, to: 2, insert: long } });
  const clear = paste.state.update({ changes: { from: 0, to: paste.state.doc.length } });
  const key = clear.state.update({ changes: [{ from: 0, insert: "k" }] });
  expect(inChanges([key]), "a key is one splice").toEqual([[{ at: 0, gone: 0, text: "k" }]]);

  let doc = Automerge.change(Automerge.init<Board>(), (board) => Object.assign(board, { ...EMPTY, text: "xyz" }));
  const texts: string[] = [];
  for (const typed of [[paste], [clear, key]]) {
    for (const splices of inChanges(typed)) {
      doc = Automerge.change(doc, (board) => {
        for (const { at, gone, text } of splices) Automerge.splice(board, ["text"], at, gone, text);
      });
      const { ops } = Automerge.decodeChange(Automerge.getLastLocalChange(doc) as Uint8Array);
      expect(ops.length).toBeLessThanOrEqual(50_000);
    }
    texts.push(doc.text);
  }
  expect(texts[0] === `x${long}z`, "the paste").toBe(true);
  expect(texts[1]).toBe("k");
});

/** As much of an editor as a binding needs to show a text. */
function makeView(): EditorView {
  let state = EditorState.create();
  const view = {
    get state() {
      return state;
    },
    dispatch: (spec: TransactionSpec) => void (state = state.update(spec).state),
  };
  return view as unknown as EditorView;
}

test("a refused edit that was as long as what it took the place of leaves the editor too", { timeout: 60_000 }, async () => {
  const server = new TestServer();
  const client = new Client({ url: "ws://test", transport: server.transport(), groupMs: 0 });
  const handle = client.open<Board>("board", { initial: EMPTY });
  await handle.whenReady();
  const view = makeView();
  bindText(handle, () => undefined).attach(view);
  handle.change((board) => Automerge.splice(board, ["text"], 0, 0, "abc"));
  await handle.whenDurable();

  client.goOffline();
  handle.change((board) => Automerge.splice(board, ["text"], 1, 1, "X"));
  expect(view.state.doc.toString()).toBe("aXc");
  server.judge = () => "forbidden";
  client.goOnline();
  await vi.waitFor(() => expect(handle.drafts.list().length).toBe(1), { timeout: 50_000 });
  expect(handle.doc().text).toBe("abc");
  expect(view.state.doc.toString()).toBe("abc");
  await client.close();
});

test("what the patches do not say as splices is compared, however long it is", () => {
  let hear: (change: Change<Board>) => void = () => undefined;
  const handle = { isReady: true, doc: () => ({ ...EMPTY, text: "abc" }), on: (_event: string, hears: typeof hear) => (hear = hears) };
  const view = makeView();
  bindText(handle as unknown as DocHandle<Board>, () => undefined).attach(view);
  const told = (text: string, patches: Automerge.Patch[]): string => {
    hear({ doc: { ...EMPTY, text }, patches, origin: "remote" } as unknown as Change<Board>);
    return view.state.doc.toString();
  };
  expect(told("xyz", [{ action: "put", path: ["text"], value: "xyz" }])).toBe("xyz");
  const pieces = Array.from({ length: 150 }, (): Automerge.Patch[] => [
    { action: "del", path: ["text", 0] },
    { action: "splice", path: ["text", 2], value: "." },
  ]);
  expect(told("...", pieces.flat())).toBe("...");
});
