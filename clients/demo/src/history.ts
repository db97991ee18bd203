/**
 * The document as it was: a slider over its changes, and the text and the cards at its place, to read and to bring back. What it
 * was, a worker finds out; here it is shown.
 */
import { save } from "@automerge/automerge";
import type { DocHandle } from "@syncline/client";
import { h, icon, say } from "./dom";
import { kindOfLine } from "./headings";
import { bringBack, type Board } from "./model";
import type { Answer, Past, Question } from "./past";

/** What the history asks of the page. */
export interface HistoryHears {
  /** Writes; false if that is not possible now, which the page has told by then. */
  change(write: (board: Board) => void): boolean;
  /** The past is shown, or not any more. */
  toggled(isOpen: boolean): void;
  /** The past cannot be shown. */
  failed(): void;
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
  readonly #cards = h("ul", { class: "past-cards", tabindex: 0, "aria-label": "The cards as they were" });
  /** Reads the past, from the moment when it was asked for. */
  #worker: Worker | undefined;
  /** How many changes there are; undefined until they are read. */
  #length: number | undefined;
  /** What is shown. */
  #shown: Past | undefined;
  /** The worker was asked for a place and has not answered. */
  #isAsked = false;
  #isReadOnly = false;

  constructor(handle: DocHandle<Board>, page: HistoryHears) {
    this.#handle = handle;
    this.#page = page;
    const toggle = (): void => (this.#worker === undefined ? this.#open() : this.close());
    const attributes = { class: "history-button", type: "button", "aria-pressed": "false", onclick: toggle };
    this.button = h("button", attributes, icon("history"), this.#label);
    const close = h("button", { class: "small", type: "button", onclick: () => this.close() }, "Close");
    const group = { class: "history-bar", role: "group", "aria-label": "History", hidden: true };
    this.bar = h("div", group, this.#range, this.#place, this.#back, close);
    this.past = h("div", { class: "past", hidden: true }, this.#text, this.#cards);
    this.bar.addEventListener("keydown", ({ key }) => {
      if (key === "Escape") this.close();
    });
    this.#range.addEventListener("input", () => this.#ask());
  }

  setReadOnly(isReadOnly: boolean): void {
    this.#isReadOnly = isReadOnly;
    this.#allow();
  }

  /** Shows the present again. */
  close(): void {
    if (this.#worker === undefined) return;
    const wasOpen = this.#length !== undefined;
    this.#worker.terminate();
    this.#worker = undefined;
    this.#length = undefined;
    this.#shown = undefined;
    this.#isAsked = false;
    say(this.#label, "History");
    if (!wasOpen) return;
    this.#toggled();
    this.button.focus();
  }

  #open(): void {
    if (!this.#handle.isReady) return;
    say(this.#label, "Reading…");
    const worker = new Worker(new URL("./past.ts", import.meta.url), { type: "module" });
    this.#worker = worker;
    // What one that was let go of still says is nobody's business.
    const heard = (answer: Answer): void => void (worker === this.#worker && this.#hear(answer));
    worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => heard(data));
    worker.addEventListener("error", ({ message }) => heard({ failed: message }));
    const saved = save(this.#handle.doc());
    worker.postMessage({ saved } satisfies Question, [saved.buffer]);
  }

  #hear(answer: Answer): void {
    if ("failed" in answer) return this.#fail();
    if ("past" in answer) return this.#show(answer.past);
    say(this.#label, "History");
    this.#length = answer.length;
    this.#range.max = String(answer.length);
    this.#range.value = this.#range.max;
    this.#toggled();
    this.#ask();
    this.#range.focus();
  }

  #fail(): void {
    this.close();
    this.#page.failed();
  }

  #toggled(): void {
    const isOpen = this.#length !== undefined;
    this.bar.hidden = !isOpen;
    this.past.hidden = !isOpen;
    this.button.setAttribute("aria-pressed", String(isOpen));
    this.#page.toggled(isOpen);
  }

  /** Asks for the slider's place; where the slider moves on meanwhile, the next question is for where it is then. */
  #ask(): void {
    if (this.#worker === undefined || this.#isAsked) return;
    this.#isAsked = true;
    this.#worker.postMessage({ count: this.#range.valueAsNumber } satisfies Question);
  }

  #show(past: Past): void {
    this.#isAsked = false;
    this.#shown = past;
    const words = this.#words(past);
    say(this.#place, words);
    this.#range.setAttribute("aria-valuetext", `Change ${words}`);
    this.#text.replaceChildren(...lines(past.text));
    const cards = past.cards.map(({ text, done }) => h("li", { class: done ? "card is-done" : "card" }, text));
    this.#cards.replaceChildren(...cards);
    this.#allow();
    if (past.count !== this.#range.valueAsNumber) this.#ask();
  }

  #words({ count, time }: Past): string {
    if (time === undefined) return `${count} of ${this.#length}`;
    const when = new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
    return `${count} of ${this.#length} · ${when}`;
  }

  #allow(): void {
    this.#back.disabled = this.#isReadOnly || this.#shown === undefined || this.#shown.count === this.#length;
  }

  #bringBack(): void {
    const past = this.#shown;
    if (past !== undefined && this.#page.change((present) => bringBack(present, past))) this.close();
  }
}

function lines(text: string): HTMLElement[] {
  return text.split("\n").map((line) => h("div", { class: kindOfLine(line)?.class }, line === "" ? "\n" : line));
}
