/**
 * The document as it was: a slider over its changes. A place on it is shown by the last change of each actor up to there, whose
 * ancestors together are all changes up to there; so one view needs no other.
 */
import * as Automerge from "@automerge/automerge";
import type { DocHandle } from "@syncline/client";
import { h, icon, say } from "./dom";
import { kindOfLine } from "./headings";
import { bringBack, readCards, readText, type Board } from "./model";

/** The changes of a document in an order in which each comes after those that it builds on. */
export interface Timeline {
  readonly length: number;
  /** The heads after the first `count` changes. */
  heads(count: number): Automerge.Heads;
  /** When the `count`th was made, in milliseconds; undefined if it does not say. */
  time(count: number): number | undefined;
}

/** Reads the changes of a document; of a long one this takes a moment. */
export function readTimeline(board: Automerge.Doc<Board>): Timeline {
  const changes = Automerge.getChangesMetaSince(board, []);
  return {
    length: changes.length,
    heads(count) {
      const last = new Map(changes.slice(0, count).map((change) => [change.actor, change.hash]));
      return [...last.values()];
    },
    time(count) {
      const time = changes[count - 1]?.time ?? 0;
      return time > 0 ? time * 1000 : undefined;
    },
  };
}

/** The slider, and the document that it shows instead of the present one. */
export interface History {
  /** Opens and closes it. */
  readonly button: HTMLElement;
  readonly bar: HTMLElement;
  /** Lies over the document while the slider is open. */
  readonly past: HTMLElement;
  readonly isOpen: boolean;
  setReadOnly(isReadOnly: boolean): void;
  close(): void;
}

/** Makes the slider. `write` changes the document; `toggled` hears that the past is shown or not. */
export function makeHistory(
  handle: DocHandle<Board>,
  write: (change: (board: Board) => void) => boolean,
  toggled: (isOpen: boolean) => void,
): History {
  let timeline: Timeline | undefined;
  let frame = 0;
  let isReadOnly = false;

  const range = h("input", { type: "range", min: 0, step: 1, "aria-label": "Changes", class: "range" });
  const place = h("output", { class: "place" });
  const back = h("button", { class: "small", type: "button", onclick: () => bring() }, "Bring back");
  const now = h("button", { class: "small", type: "button", onclick: () => close() }, "Close");
  const bar = h("div", { class: "history-bar", role: "group", "aria-label": "History", hidden: true }, range, place, back, now);
  const button = h(
    "button",
    { class: "history-button", type: "button", "aria-pressed": "false", onclick: () => (timeline === undefined ? open() : close()) },
    icon("history"),
    h("span", {}, "History"),
  );
  const text = h("div", { class: "past-text", tabindex: 0, role: "region", "aria-label": "The text as it was" });
  const cards = h("ul", { class: "past-cards", "aria-label": "The cards as they were" });
  const past = h("div", { class: "past", hidden: true }, text, cards);

  const view = (): Automerge.Doc<Board> | undefined => timeline && handle.view(timeline.heads(range.valueAsNumber));

  const show = (): void => {
    const board = view();
    if (timeline === undefined || board === undefined) return;
    const count = range.valueAsNumber;
    const time = timeline.time(count);
    const when = time === undefined ? "" : ` · ${new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" })}`;
    const words = `${count} of ${timeline.length}${when}`;
    say(place, words);
    range.setAttribute("aria-valuetext", `Change ${words}`);
    text.replaceChildren(...lines(readText(board) ?? ""));
    cards.replaceChildren(
      ...readCards(board).map((card) => h("li", { class: card.done ? "card is-done" : "card" }, card.text)),
    );
    back.disabled = isReadOnly || count === timeline.length;
  };

  range.addEventListener("input", () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(show);
  });

  bar.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });

  const open = (): void => {
    timeline = readTimeline(handle.doc());
    range.max = String(timeline.length);
    range.value = range.max;
    render();
    show();
    range.focus();
  };
  const close = (): void => {
    if (timeline === undefined) return;
    timeline = undefined;
    render();
    button.focus();
  };
  const bring = (): void => {
    const board = view();
    if (board !== undefined && write((present) => bringBack(present, board))) close();
  };
  const render = (): void => {
    const isOpen = timeline !== undefined;
    bar.hidden = !isOpen;
    past.hidden = !isOpen;
    button.setAttribute("aria-pressed", String(isOpen));
    toggled(isOpen);
  };

  return {
    button,
    bar,
    past,
    close,
    get isOpen() {
      return timeline !== undefined;
    },
    setReadOnly(value) {
      isReadOnly = value;
      back.disabled = value;
    },
  };
}

function lines(text: string): HTMLElement[] {
  return text.split("\n").map((line) => h("div", { class: kindOfLine(line)?.class }, line === "" ? "\n" : line));
}
