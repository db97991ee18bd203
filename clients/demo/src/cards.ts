/**
 * The list of cards. Each card keeps its row for as long as it lives, so that what has the focus keeps it whatever others do;
 * a card that is being written takes others' letters in around the caret.
 */
import { CARD_TEXT_MAX, CardRow, type CardHears } from "./card";
import { h, icon } from "./dom";
import { addCard, moveCard, readCards, writeCard, type Board, type PlacedCard } from "./model";
import type { Person } from "./visitor";

/** What the list asks of the page. */
export interface CardsHears {
  /** Writes; false if that is not possible now, which the page has told by then. */
  change(write: (board: Board) => void): boolean;
  /** The card that is being written; undefined when none is. */
  moved(card: string | undefined): void;
  /** Makes an id that nobody else makes. */
  makeId(): string;
}

/** The list of one document. */
export class Cards implements CardHears {
  readonly element: HTMLElement;

  readonly #page: CardsHears;
  readonly #rows = new Map<string, CardRow>();
  readonly #list = h("ul", { class: "card-list" });
  readonly #none = h("p", { class: "none" }, "No cards yet.");
  readonly #fresh = h("input", {
    class: "fresh",
    type: "text",
    placeholder: "Add a card",
    "aria-label": "Add a card",
    maxlength: CARD_TEXT_MAX,
    autocomplete: "off",
  });
  readonly #form = h(
    "form",
    { class: "add-card", onsubmit: (event: SubmitEvent) => (event.preventDefault(), this.#addFresh()) },
    h("button", { class: "plain", type: "submit", "aria-label": "Add" }, icon("add")),
    this.#fresh,
  );
  #shown: readonly PlacedCard[] = [];
  #isReadOnly = false;
  #dragged: string | undefined;

  constructor(page: CardsHears) {
    this.#page = page;
    this.element = h("div", { class: "cards-inside" }, this.#none, this.#list, this.#form);
  }

  show(board: Partial<Board>): void {
    this.#shown = readCards(board);
    const ids = new Set(this.#shown.map((card) => card.id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      this.#rows.delete(id);
      row.element.remove();
    }
    this.#shown.forEach((card, index) => {
      const row = this.#rows.get(card.id) ?? new CardRow(card.id, this);
      this.#rows.set(card.id, row);
      // What is in its place already is not touched: an element that is put anew loses the focus.
      if (this.#list.children[index] !== row.element) {
        this.#list.insertBefore(row.element, this.#list.children[index] ?? null);
      }
    });
    this.#fill();
    this.#none.hidden = this.#shown.length > 0;
  }

  showPeople(people: readonly Person[]): void {
    for (const [id, row] of this.#rows) row.showWriter(people.find((person) => person.card === id));
  }

  setReadOnly(isReadOnly: boolean): void {
    this.#isReadOnly = isReadOnly;
    this.#form.hidden = isReadOnly;
    this.element.classList.toggle("is-read-only", isReadOnly);
    this.#fill();
  }

  setDone(id: string, done: boolean): boolean {
    return this.#page.change(({ cards }) => {
      if (cards[id] !== undefined) cards[id].done = done;
    });
  }

  write(id: string, text: string): void {
    // Where it was not written the row shows again what the document holds.
    if (!this.#page.change((board) => writeCard(board, id, text))) this.#fill();
  }

  moveBy(id: string, step: number): void {
    const index = this.#indexOf(id) + step;
    if (index < 0 || index >= this.#shown.length) return;
    const focused = document.activeElement;
    const isMoved = this.#page.change((board) => moveCard(board, this.#shown, id, index));
    if (isMoved && focused instanceof HTMLElement) focused.focus();
  }

  addAfter(id: string): void {
    const added = this.#page.makeId();
    if (this.#page.change((board) => addCard(board, this.#shown, added, "", id))) this.#rows.get(added)?.focus();
  }

  remove(id: string): void {
    const index = this.#indexOf(id);
    const next = this.#shown[index + 1] ?? this.#shown[index - 1];
    const isGone = this.#page.change(({ cards }) => {
      delete cards[id];
    });
    if (isGone) ((next && this.#rows.get(next.id)) ?? this.#fresh).focus();
  }

  focused(id: string | undefined): void {
    this.#page.moved(id);
  }

  drag(id: string | undefined): boolean {
    this.#dragged = this.#isReadOnly ? undefined : id;
    return this.#dragged !== undefined;
  }

  dropOn(id: string): void {
    const moved = this.#dragged;
    const index = this.#indexOf(id);
    if (moved !== undefined && moved !== id) this.#page.change((board) => moveCard(board, this.#shown, moved, index));
  }

  #addFresh(): void {
    const text = this.#fresh.value.trim();
    if (text === "") return;
    const id = this.#page.makeId();
    if (!this.#page.change((board) => addCard(board, this.#shown, id, text))) return;
    this.#fresh.value = "";
    this.#form.scrollIntoView({ block: "nearest" });
  }

  #fill(): void {
    this.#shown.forEach((card, index) => {
      const [isFirst, isLast] = [index === 0, index === this.#shown.length - 1];
      this.#rows.get(card.id)?.show(card, { isFirst, isLast, isReadOnly: this.#isReadOnly });
    });
  }

  #indexOf(id: string): number {
    return this.#shown.findIndex((card) => card.id === id);
  }
}
