/** The text and the cards, also when two write at once. */
import * as Automerge from "@automerge/automerge";
import { describe, expect, test } from "vitest";
import { addCard, bringBack, difference, EMPTY, moveCard, readCards, readText, writeCard, type Board } from "../src/model";

type Doc = Automerge.Doc<Board>;

function begin(...cards: string[]): Doc {
  return Automerge.change(Automerge.from<Board & Record<string, unknown>>({ ...EMPTY }) as Doc, (board) => {
    cards.forEach((card, place) => (board.cards[card] = { text: card, done: false, place }));
  });
}

function order(board: Doc): string[] {
  return readCards(board).map((card) => card.id);
}

describe("cards", () => {
  test("are added at the end or after another, and moved to any place", () => {
    let board = begin("a", "b", "c");
    board = Automerge.change(board, (now) => addCard(now, readCards(board), "d", "D", "a"));
    expect(order(board)).toEqual(["a", "d", "b", "c"]);
    board = Automerge.change(board, (now) => moveCard(now, readCards(board), "c", 0));
    expect(order(board)).toEqual(["c", "a", "d", "b"]);
    board = Automerge.change(board, (now) => moveCard(now, readCards(board), "c", 2));
    expect(order(board)).toEqual(["a", "d", "c", "b"]);
    board = Automerge.change(board, (now) => moveCard(now, readCards(board), "a", 99));
    expect(order(board)).toEqual(["d", "c", "b", "a"]);
  });

  test("find a place between two however often", () => {
    let board = begin("a", "b");
    for (let round = 0; round < 200; round += 1) {
      board = Automerge.change(board, (now) => addCard(now, readCards(board), `n${round}`, "", "a"));
      expect(order(board).slice(0, 2)).toEqual(["a", `n${round}`]);
    }
    expect(order(board)).toHaveLength(202);
    expect(order(board).at(-1)).toBe("b");
  });

  test("moved and written by two at once are one card, moved and written", () => {
    const base = begin("a", "b", "c");
    const moved = Automerge.change(Automerge.clone(base), (board) => moveCard(board, readCards(base), "c", 0));
    const written = Automerge.change(Automerge.clone(base), (board) => writeCard(board, "c", "see"));
    const together = Automerge.merge(moved, written);
    expect(readCards(together).map(({ text }) => text)).toEqual(["see", "a", "b"]);
  });

  test("that are no cards are not shown", () => {
    const cards = { a: null, b: 7, c: { text: 9 }, d: { text: "d" }, e: { text: "e", done: 1, place: "x" } };
    expect(readCards({ cards } as unknown as Board)).toEqual([
      { id: "d", text: "d", done: false, place: 0 },
      { id: "e", text: "e", done: false, place: 0 },
    ]);
    expect(readCards({ cards: [] } as unknown as Board)).toEqual([]);
    expect(readCards({})).toEqual([]);
    expect(readText({})).toBe("");
    expect(readText({ text: 7 } as unknown as Board)).toBeUndefined();
  });
});

test("the past is brought back whole, and what came later stays in the history", () => {
  const past = Automerge.change(begin("a", "b"), (board) => Automerge.splice(board, ["text"], 0, 0, "Once"));
  const heads = Automerge.getHeads(past);
  const later = Automerge.change(past, (board) => {
    Automerge.splice(board, ["text"], 4, 0, " upon");
    delete board.cards["a"];
    writeCard(board, "b", "other");
    addCard(board, readCards(past), "c", "c");
  });
  const count = Automerge.getAllChanges(later).length;
  const then = Automerge.view(later, heads);
  const back = Automerge.change(later, (board) => bringBack(board, { text: readText(then) ?? "", cards: readCards(then) }));
  expect(Automerge.toJS(back)).toEqual(Automerge.toJS(then));
  expect(Automerge.getAllChanges(back).length).toBe(count + 1);
});

test("a difference is one piece, as small as can be, and cuts no letter in two", () => {
  const check = (before: string, after: string, from: number, to: number, insert: string): void =>
    expect(difference(before, after)).toEqual({ from, to, insert });
  check("", "", 0, 0, "");
  check("abc", "abc", 3, 3, "");
  check("abc", "aXc", 1, 2, "X");
  check("aa", "aaa", 2, 2, "a");
  check("aaa", "aa", 2, 3, "");
  check("😀", "😁", 0, 2, "😁");
  check("a😀b", "ab", 1, 3, "");
});
