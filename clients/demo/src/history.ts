/** The document as it was: a slider over its changes, and the text and the cards at its place, to read and to bring back. */
import type { DocHandle } from "@syncline/client";
import { h, icon, say } from "./dom";
import { kindOfLine } from "./headings";
import { bringBack, readCards, readText, type Board } from "./model";
import { readTimeline, type Timeline } from "./timeline";

/** What the history asks of the page. */
export interface HistoryHears {
  /** Writes; false if that is not possible now, which the page has told by then. */
  change(write: (board: Board) => void): boolean;
  /** The past is shown, or not any more. */
  toggled(isOpen: boolean): void;
}

/** The history of one document. */
export class History {
  /** Opens and closes it. */
  readonly button: HTMLElement;
  readonly bar: HTMLElement;
  /** Lies over the document while the slider is open. */
  readonly past: HTMLElement;

  readonly #handle: DocHandle<Board>;
  readonly #page: HistoryHears;
  readonly #label = h("span", {}, "History");
  readonly #range = h("input", { type: "range", min: 0, step: 1, "aria-label": "Changes", class: "range" });
  readonly #place = h("output", { class: "place" });
  readonly #back = h("button", { class: "small", type: "button", onclick: () => this.#bringBack() }, "Bring back");
  readonly #text = h("div", { class: "past-text", tabindex: 0, role: "region", "aria-label": "The text as it was" });
  readonly #cards = h("ul", { class: "past-cards", "aria-label": "The cards as they were" });
  #timeline: Timeline | undefined;
  #frame = 0;
  #isReadOnly = false;

  constructor(handle: DocHandle<Board>, page: HistoryHears) {
    this.#handle = handle;
    this.#page = page;
    const toggle = (): void => (this.#timeline === undefined ? this.#open() : this.#close());
    const attributes = { class: "history-button", type: "button", "aria-pressed": "false", onclick: toggle };
    this.button = h("button", attributes, icon("history"), this.#label);
    const close = h("button", { class: "small", type: "button", onclick: () => this.#close() }, "Close");
    const group = { class: "history-bar", role: "group", "aria-label": "History", hidden: true };
    this.bar = h("div", group, this.#range, this.#place, this.#back, close);
    this.past = h("div", { class: "past", hidden: true }, this.#text, this.#cards);
    this.bar.addEventListener("keydown", ({ key }) => {
      if (key === "Escape") this.#close();
    });
    this.#range.addEventListener("input", () => {
      cancelAnimationFrame(this.#frame);
      this.#frame = requestAnimationFrame(() => this.#show());
    });
  }

  setReadOnly(isReadOnly: boolean): void {
    this.#isReadOnly = isReadOnly;
    this.#allow();
  }

  #open(): void {
    say(this.#label, "Reading…");
    // Of many changes it takes a moment, so that is to be seen first.
    requestAnimationFrame(() => setTimeout(() => this.#read()));
  }

  #read(): void {
    say(this.#label, "History");
    if (this.#timeline !== undefined || !this.#handle.isReady) return;
    this.#timeline = readTimeline(this.#handle.doc());
    this.#range.max = String(this.#timeline.length);
    this.#range.value = this.#range.max;
    this.#toggled();
    this.#show();
    this.#range.focus();
  }

  #close(): void {
    if (this.#timeline === undefined) return;
    this.#timeline = undefined;
    this.#toggled();
    this.button.focus();
  }

  #toggled(): void {
    const isOpen = this.#timeline !== undefined;
    this.bar.hidden = !isOpen;
    this.past.hidden = !isOpen;
    this.button.setAttribute("aria-pressed", String(isOpen));
    this.#page.toggled(isOpen);
  }

  #show(): void {
    const timeline = this.#timeline;
    if (timeline === undefined || !this.#handle.isReady) return;
    const board = this.#handle.view(timeline.heads(this.#range.valueAsNumber));
    const words = this.#words(timeline);
    say(this.#place, words);
    this.#range.setAttribute("aria-valuetext", `Change ${words}`);
    this.#text.replaceChildren(...lines(readText(board) ?? ""));
    const cards = readCards(board).map(({ text, done }) => h("li", { class: done ? "card is-done" : "card" }, text));
    this.#cards.replaceChildren(...cards);
    this.#allow();
  }

  #words(timeline: Timeline): string {
    const count = this.#range.valueAsNumber;
    const time = timeline.time(count);
    if (time === undefined) return `${count} of ${timeline.length}`;
    const when = new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
    return `${count} of ${timeline.length} · ${when}`;
  }

  #allow(): void {
    this.#back.disabled = this.#isReadOnly || this.#range.valueAsNumber === this.#timeline?.length;
  }

  #bringBack(): void {
    if (this.#timeline === undefined) return;
    const board = this.#handle.view(this.#timeline.heads(this.#range.valueAsNumber));
    if (this.#page.change((present) => bringBack(present, board))) this.#close();
  }
}

function lines(text: string): HTMLElement[] {
  return text.split("\n").map((line) => h("div", { class: kindOfLine(line)?.class }, line === "" ? "\n" : line));
}
