/** One card: done or not, its text, who writes it, and what can be done with it, by pointer or by key. */
import { h, icon } from "./dom";
import { difference, type PlacedCard } from "./model";
import type { Person } from "./visitor";

/** A card's text up to here; more belongs into the shared text. */
export const CARD_TEXT_MAX = 2000;

/** What a card asks of its list. */
export interface CardHears {
  /** False if it could not be written. */
  setDone(id: string, done: boolean): boolean;
  write(id: string, text: string): void;
  moveBy(id: string, step: number): void;
  addAfter(id: string): void;
  remove(id: string): void;
  /** The card that has the focus. */
  focused(id: string | undefined): void;
  /** Begins or ends to drag a card; false if none is dragged now. */
  drag(id: string | undefined): boolean;
  dropOn(id: string): void;
}

/** Where a card stands in its list. */
export interface Standing {
  readonly isFirst: boolean;
  readonly isLast: boolean;
  readonly isReadOnly: boolean;
}

/** The row of a card. */
export class CardRow {
  readonly element: HTMLLIElement;

  readonly #id: string;
  readonly #list: CardHears;
  readonly #done = h("input", { type: "checkbox", class: "done", onchange: () => this.#toggle() });
  readonly #text = h("textarea", {
    rows: 1,
    maxlength: CARD_TEXT_MAX,
    "aria-label": "Card",
    oninput: () => this.#list.write(this.#id, this.#text.value),
    onkeydown: (event: KeyboardEvent) => this.#press(event),
    onfocus: () => this.#list.focused(this.#id),
    onblur: () => this.#list.focused(undefined),
  });
  readonly #writer = h("span", { class: "card-writer", hidden: true });
  readonly #up = this.#button("up", "Move up", () => this.#list.moveBy(this.#id, -1));
  readonly #down = this.#button("down", "Move down", () => this.#list.moveBy(this.#id, 1));
  readonly #remove = this.#button("remove", "Delete", () => this.#list.remove(this.#id));

  constructor(id: string, list: CardHears) {
    this.#id = id;
    this.#list = list;
    const grip = h("span", { class: "grip", "aria-hidden": "true" }, icon("grip"));
    const actions = h("span", { class: "card-actions" }, this.#up, this.#down, this.#remove);
    this.element = h("li", { class: "card", "data-card": id }, grip, this.#done, this.#text, this.#writer, actions);
    this.#makeDraggable(grip);
  }

  show(card: PlacedCard, { isFirst, isLast, isReadOnly }: Standing): void {
    this.element.classList.toggle("is-done", card.done);
    this.#done.checked = card.done;
    this.#name(card.text.slice(0, 80) || "empty card");
    this.#done.disabled = isReadOnly;
    this.#text.readOnly = isReadOnly;
    this.#up.disabled = isReadOnly || isFirst;
    this.#down.disabled = isReadOnly || isLast;
    this.#remove.disabled = isReadOnly;
    this.#write(card.text);
  }

  showWriter(person: Person | undefined): void {
    this.#writer.hidden = person === undefined;
    this.#writer.textContent = person?.name ?? "";
    this.element.className = this.element.className.replace(/ is-written| person-\d+/g, "");
    if (person !== undefined) this.element.classList.add("is-written", `person-${person.color}`);
  }

  focus(): void {
    this.#text.focus();
  }

  #toggle(): void {
    const done = this.#done.checked;
    if (!this.#list.setDone(this.#id, done)) this.#done.checked = !done;
  }

  #press(event: KeyboardEvent): void {
    if (event.isComposing || this.#text.readOnly) return;
    if (event.altKey && event.key === "ArrowUp") this.#list.moveBy(this.#id, -1);
    else if (event.altKey && event.key === "ArrowDown") this.#list.moveBy(this.#id, 1);
    else if (event.key === "Enter" && !event.shiftKey) this.#list.addAfter(this.#id);
    else if (event.key === "Backspace" && this.#text.value === "") this.#list.remove(this.#id);
    else return;
    event.preventDefault();
  }

  /** What a screen reader calls the controls: of which card each one is. */
  #name(card: string): void {
    this.#done.setAttribute("aria-label", `Done: ${card}`);
    for (const button of [this.#up, this.#down, this.#remove]) button.setAttribute("aria-label", `${button.title}: ${card}`);
  }

  /** Puts the text into the field and keeps the caret at its letters. */
  #write(text: string): void {
    const field = this.#text;
    if (field.value === text) return;
    const { from, to, insert } = difference(field.value, text);
    const moved = (position: number): number => {
      if (position <= from) return position;
      return position >= to ? position + insert.length - (to - from) : from + insert.length;
    };
    const [start, end] = [moved(field.selectionStart), moved(field.selectionEnd)];
    field.value = text;
    if (document.activeElement === field) field.setSelectionRange(start, end);
  }

  #button(name: "up" | "down" | "remove", label: string, run: () => void): HTMLButtonElement {
    return h("button", { class: "plain", type: "button", title: label, onclick: run }, icon(name));
  }

  /** By the grip alone, so that the text can still be selected. */
  #makeDraggable(grip: HTMLElement): void {
    const row = this.element;
    grip.addEventListener("pointerdown", () => (row.draggable = true));
    row.addEventListener("dragstart", (event) => {
      if (!this.#list.drag(this.#id)) return event.preventDefault();
      event.dataTransfer?.setData("text/plain", this.#text.value);
      row.classList.add("dragged");
    });
    row.addEventListener("dragend", () => {
      this.#list.drag(undefined);
      row.draggable = false;
      row.classList.remove("dragged");
    });
    row.addEventListener("dragover", (event) => event.preventDefault());
    row.addEventListener("drop", (event) => {
      event.preventDefault();
      this.#list.dropOn(this.#id);
    });
  }
}
