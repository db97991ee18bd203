/**
 * What the page keeps in a document: one text, and cards beside it. Every function that changes one is called inside a change;
 * everything that is read may have been written by anybody, so it is looked at first.
 */
import * as Automerge from "@automerge/automerge";

/** A card. Its place is a number between those of its neighbours: to move a card is to set it, whatever others do meanwhile. */
export interface Card {
  text: string;
  done: boolean;
  place: number;
}

/** The document. Cards lie by id, so that two that are added at once are two. */
export interface Board {
  text: string;
  cards: Record<string, Card>;
}

/** How a document begins. */
export const EMPTY: Board = { text: "", cards: {} };

/** A card as it is shown. */
export interface PlacedCard extends Card {
  readonly id: string;
}

/** The text; undefined if the document holds none that can be edited as one. */
export function readText(board: Partial<Board>): string | undefined {
  const text: unknown = board.text;
  if (text === undefined) return "";
  return typeof text === "string" ? text : undefined;
}

/** The cards from first to last; what is no card is left out. */
export function readCards(board: Partial<Board>): PlacedCard[] {
  const cards: unknown = board.cards;
  if (typeof cards !== "object" || cards === null || Array.isArray(cards)) return [];
  const placed = Object.entries(cards as Record<string, Partial<Card> | null>).flatMap(([id, card]): PlacedCard[] => {
    if (typeof card !== "object" || card === null) return [];
    const { text, done, place } = card;
    if (typeof text !== "string") return [];
    return [{ id, text, done: done === true, place: typeof place === "number" ? place : 0 }];
  });
  return placed.sort((one, other) => one.place - other.place || (one.id < other.id ? -1 : 1));
}

/** Puts a card at the end of `cards`, which are those of the document, or right after another. */
export function addCard(board: Board, cards: readonly PlacedCard[], id: string, text: string, after?: string): void {
  if (typeof board.cards !== "object") board.cards = {};
  const index = after === undefined ? cards.length : cards.findIndex((card) => card.id === after) + 1;
  board.cards[id] = { text, done: false, place: placeAt(board, cards, index) };
}

/** Brings a card of `cards`, which are those of the document, to where it is the `index`th. */
export function moveCard(board: Board, cards: readonly PlacedCard[], id: string, index: number): void {
  const card = board.cards[id];
  if (card === undefined) return;
  const others = cards.filter((other) => other.id !== id);
  card.place = placeAt(board, others, Math.max(0, Math.min(index, others.length)));
}

/** Makes a card's text `text`, by the letters that differ: two who write into one card both stay. */
export function writeCard(board: Board, id: string, text: string): void {
  if (board.cards[id] === undefined) return;
  splice(board, ["cards", id, "text"], difference(board.cards[id].text, text));
}

/** Makes the text and the cards what they were. */
export function bringBack(board: Board, { text, cards }: { readonly text: string; readonly cards: readonly PlacedCard[] }): void {
  splice(board, ["text"], difference(readText(board) ?? "", text));
  for (const { id } of readCards(board)) if (!cards.some((card) => card.id === id)) delete board.cards[id];
  for (const { id, text, done, place } of cards) {
    const card = board.cards[id];
    if (card === undefined) board.cards[id] = { text, done, place };
    else {
      writeCard(board, id, text);
      if (card.done !== done) card.done = done;
      if (card.place !== place) card.place = place;
    }
  }
}

/** The one piece in which two texts differ. */
export interface Difference {
  readonly from: number;
  /** Where it ends in the former text. */
  readonly to: number;
  readonly insert: string;
}

/** What to replace in `before` to get `after`: all between what they have in common at both ends. */
export function difference(before: string, after: string): Difference {
  const shorter = Math.min(before.length, after.length);
  let from = 0;
  while (from < shorter && before.charCodeAt(from) === after.charCodeAt(from)) from += 1;
  let kept = 0;
  while (kept < shorter - from && before.charCodeAt(before.length - 1 - kept) === after.charCodeAt(after.length - 1 - kept)) {
    kept += 1;
  }
  // No half of a surrogate pair is replaced alone.
  if (from > 0 && isHighSurrogate(before.charCodeAt(from - 1))) from -= 1;
  if (kept > 0 && isLowSurrogate(before.charCodeAt(before.length - kept))) kept -= 1;
  return { from, to: before.length - kept, insert: after.slice(from, after.length - kept) };
}

function splice(board: Board, path: string[], { from, to, insert }: Difference): void {
  if (to > from || insert !== "") Automerge.splice(board, path, from, to - from, insert);
}

function isHighSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit < 0xdc00;
}

function isLowSurrogate(unit: number): boolean {
  return unit >= 0xdc00 && unit < 0xe000;
}

/** A place before the `index`th of `cards`; when numbers have no room left between two cards, all get new ones. */
function placeAt(board: Board, cards: readonly PlacedCard[], index: number): number {
  const before = cards[index - 1]?.place;
  const after = cards[index]?.place;
  if (before === undefined) return after === undefined ? 0 : after - 1;
  if (after === undefined) return before + 1;
  const middle = (before + after) / 2;
  if (before < middle && middle < after) return middle;
  cards.forEach(({ id }, place) => {
    const card = board.cards[id];
    if (card !== undefined) card.place = place < index ? place : place + 1;
  });
  return index;
}
