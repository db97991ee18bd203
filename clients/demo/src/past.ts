/**
 * The worker behind the history. It holds a copy of the document and shows it as it was, so that reading many changes, and
 * showing a long text at one of them, holds up nobody who writes. It never changes anything, and knows neither page nor network.
 */
import * as Automerge from "@automerge/automerge";
import wasm from "@automerge/automerge/automerge.wasm?url";
import { readCards, readText, type Board, type PlacedCard } from "./model";
import { readTimeline, type Timeline } from "./timeline";

/** What the worker is asked: first to read a saved document, then to show it after so many changes. */
export type Question = { readonly saved: Uint8Array } | { readonly count: number };

/** A document as it was. */
export interface Past {
  readonly count: number;
  /** When the last of these changes was made, in milliseconds; undefined if it does not say. */
  readonly time: number | undefined;
  readonly text: string;
  readonly cards: readonly PlacedCard[];
}

/** What the worker answers: how many changes there are; the document after some of them; or that it cannot. */
export type Answer = { readonly length: number } | { readonly past: Past } | { readonly failed: string };

/** The part of a worker's scope that is used here. */
interface WorkerScope {
  postMessage(answer: Answer): void;
  addEventListener(type: "message", handler: (event: MessageEvent<Question>) => void): void;
}

const scope = self as unknown as WorkerScope;
const started = Automerge.initializeWasm(wasm);
let read: { readonly board: Automerge.Doc<Board>; readonly timeline: Timeline } | undefined;

scope.addEventListener("message", ({ data }) => {
  started.then(() => scope.postMessage(answer(data))).catch((error: unknown) => scope.postMessage({ failed: String(error) }));
});

function answer(question: Question): Answer {
  if ("saved" in question) {
    const board = Automerge.load<Board>(question.saved);
    read = { board, timeline: readTimeline(board) };
    return { length: read.timeline.length };
  }
  if (read === undefined) return { failed: "nothing was read yet" };
  const { count } = question;
  const board = Automerge.view(read.board, read.timeline.heads(count));
  return { past: { count, time: read.timeline.time(count), text: readText(board) ?? "", cards: readCards(board) } };
}
