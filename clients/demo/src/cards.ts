/**
 * The list of cards. Each card keeps its element for as long as it lives, so that what has the focus keeps it whatever others
 * do; a card that is being written takes others' letters in around the caret.
 */
import { h, icon } from "./dom";
import { addCard, difference, moveCard, readCards, writeCard, type Board, type PlacedCard } from "./model";
import type { Person } from "./visitor";

/** A card's text up to here; more belongs into the shared text. */
const CARD_TEXT_MAX = 2000;

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
export interface Cards {
  readonly element: HTMLElement;
  show(board: Partial<Board>): void;
  showPeople(people: readonly Person[]): void;
  setReadOnly(isReadOnly: boolean): void;
}

interface Row {
  readonly element: HTMLLIElement;
  readonly done: HTMLInputElement;
  readonly text: HTMLTextAreaElement;
  readonly writer: HTMLElement;
  readonly up: HTMLButtonElement;
  readonly down: HTMLButtonElement;
  readonly buttons: readonly HTMLButtonElement[];
}

/** Makes the list. */
export function makeCards(hears: CardsHears): Cards {
  const rows = new Map<string, Row>();
  let shown: PlacedCard[] = [];
  let isReadOnly = false;
  let dragged: string | undefined;

  const list = h("ul", { class: "card-list" });
  const fresh = h("input", {
    class: "fresh",
    type: "text",
    placeholder: "Add a card",
    "aria-label": "Add a card",
    maxlength: CARD_TEXT_MAX,
    autocomplete: "off",
  });
  const add = h("button", { class: "plain", type: "submit", "aria-label": "Add" }, icon("add"));
  const form = h("form", { class: "add-card", onsubmit: (event: SubmitEvent) => (event.preventDefault(), addFresh()) }, add, fresh);
  const none = h("p", { class: "none" }, "No cards yet.");
  const element = h("div", { class: "cards-inside" }, none, list, form);

  const addFresh = (): void => {
    const text = fresh.value.trim();
    if (text === "") return;
    const id = hears.makeId();
    if (hears.change((board) => addCard(board, id, text))) {
      fresh.value = "";
      rows.get(id)?.element.scrollIntoView({ block: "nearest" });
    }
  };

  const focusCard = (id: string | undefined): void => {
    const row = id === undefined ? undefined : rows.get(id);
    (row?.text ?? fresh).focus();
  };

  const remove = (id: string): void => {
    const index = shown.findIndex((card) => card.id === id);
    const next = shown[index + 1] ?? shown[index - 1];
    if (hears.change((board) => void delete board.cards[id])) focusCard(next?.id);
  };

  const moveBy = (id: string, step: number): void => {
    const index = shown.findIndex((card) => card.id === id) + step;
    if (index < 0 || index >= shown.length) return;
    const focused = deepFocus();
    if (hears.change((board) => moveCard(board, id, index))) focused?.focus();
  };

  const addAfter = (id: string): void => {
    const added = hears.makeId();
    if (hears.change((board) => addCard(board, added, "", id))) focusCard(added);
  };

  const onKey = (id: string, event: KeyboardEvent): void => {
    const text = rows.get(id)?.text;
    if (event.isComposing) return;
    if (event.altKey && event.key === "ArrowUp") moveBy(id, -1);
    else if (event.altKey && event.key === "ArrowDown") moveBy(id, 1);
    else if (event.key === "Enter" && !event.shiftKey) addAfter(id);
    else if (event.key === "Backspace" && text?.value === "" && !isReadOnly) remove(id);
    else return;
    event.preventDefault();
  };

  const makeRow = (id: string): Row => {
    const act = (name: "up" | "down" | "remove", label: string, run: () => void): HTMLButtonElement =>
      h("button", { class: "plain", type: "button", "aria-label": label, title: label, onclick: run }, icon(name));
    const done = h("input", {
      type: "checkbox",
      class: "done",
      onchange: () => {
        const isDone = done.checked;
        if (!hears.change((board) => set(board, id, isDone))) done.checked = !isDone;
      },
    });
    const text = h("textarea", {
      rows: 1,
      maxlength: CARD_TEXT_MAX,
      "aria-label": "Card",
      oninput: () => {
        hears.change((board) => writeCard(board, id, text.value));
        const written = shown.find((card) => card.id === id)?.text;
        if (written !== undefined) write(text, written);
      },
      onkeydown: (event: KeyboardEvent) => onKey(id, event),
      onfocus: () => hears.moved(id),
      onblur: () => hears.moved(undefined),
    });
    const writer = h("span", { class: "card-writer", hidden: true });
    const up = act("up", "Move up", () => moveBy(id, -1));
    const down = act("down", "Move down", () => moveBy(id, 1));
    const gone = act("remove", "Delete", () => remove(id));
    const grip = h("span", { class: "grip", "aria-hidden": "true" }, icon("grip"));
    const actions = h("span", { class: "card-actions" }, up, down, gone);
    const row = h("li", { class: "card", "data-card": id }, grip, done, text, writer, actions);
    grip.addEventListener("pointerdown", () => (row.draggable = !isReadOnly));
    row.addEventListener("dragstart", (event) => {
      dragged = id;
      event.dataTransfer?.setData("text/plain", text.value);
      row.classList.add("dragged");
    });
    row.addEventListener("dragend", () => {
      dragged = undefined;
      row.draggable = false;
      row.classList.remove("dragged");
    });
    row.addEventListener("dragover", (event) => {
      if (dragged !== undefined) event.preventDefault();
    });
    row.addEventListener("drop", (event) => {
      event.preventDefault();
      const moved = dragged;
      const index = shown.findIndex((card) => card.id === id);
      if (moved !== undefined && moved !== id) hears.change((board) => moveCard(board, moved, index));
    });
    return { element: row, done, text, writer, up, down, buttons: [up, down, gone] };
  };

  const fill = (row: Row, card: PlacedCard, index: number): void => {
    row.element.classList.toggle("is-done", card.done);
    if (row.done.checked !== card.done) row.done.checked = card.done;
    row.done.setAttribute("aria-label", `Done: ${card.text.slice(0, 80) || "empty card"}`);
    row.done.disabled = isReadOnly;
    row.text.readOnly = isReadOnly;
    for (const button of row.buttons) button.disabled = isReadOnly;
    if (index === 0) row.up.disabled = true;
    if (index === shown.length - 1) row.down.disabled = true;
    write(row.text, card.text);
  };

  const show = (board: Partial<Board>): void => {
    shown = readCards(board);
    const ids = new Set(shown.map((card) => card.id));
    for (const [id, row] of rows) {
      if (ids.has(id)) continue;
      rows.delete(id);
      row.element.remove();
    }
    shown.forEach((card, index) => {
      const row = rows.get(card.id) ?? makeRow(card.id);
      rows.set(card.id, row);
      // What is in its place already is not touched: an element that is put anew loses the focus.
      if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
      fill(row, card, index);
    });
    none.hidden = shown.length > 0;
  };

  return {
    element,
    show,
    showPeople(people) {
      for (const [id, row] of rows) {
        const person = people.find((one) => one.card === id);
        row.writer.hidden = person === undefined;
        row.writer.textContent = person?.name ?? "";
        row.writer.className = `card-writer person-${person?.color ?? 0}`;
        row.element.classList.toggle("is-written", person !== undefined);
        row.element.style.setProperty("--person", person === undefined ? "transparent" : `var(--person-${person.color})`);
      }
    },
    setReadOnly(now) {
      isReadOnly = now;
      form.hidden = now;
      shown.forEach((card, index) => {
        const row = rows.get(card.id);
        if (row !== undefined) fill(row, card, index);
      });
    },
  };
}

function set(board: Board, id: string, done: boolean): void {
  const card = board.cards[id];
  if (card !== undefined) card.done = done;
}

/** Puts a text into a field and keeps the caret at its letters. */
function write(field: HTMLTextAreaElement, text: string): void {
  if (field.value === text) return;
  const { from, to, insert } = difference(field.value, text);
  const moved = (position: number): number =>
    position <= from ? position : position >= to ? position + insert.length - (to - from) : from + insert.length;
  const [start, end] = [moved(field.selectionStart), moved(field.selectionEnd)];
  field.value = text;
  if (document.activeElement === field) field.setSelectionRange(start, end);
}

function deepFocus(): HTMLElement | undefined {
  return document.activeElement instanceof HTMLElement ? document.activeElement : undefined;
}
