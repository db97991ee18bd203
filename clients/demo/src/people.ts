/** The row of who is here: oneself first, whose name is a field behind a button, then the others. */
import { h, icon, say } from "./dom";
import { initials, type Person } from "./visitor";

/** This many circles are shown; the others are a number. */
const CIRCLES_MAX = 5;

/** Oneself, as shown. */
export interface Self {
  readonly name: string;
  readonly color: number;
  /** A name from a token is not ours to change. */
  readonly isVouched: boolean;
}

/** The row. */
export interface People {
  readonly element: HTMLElement;
  show(self: Self, others: readonly Person[]): void;
}

/** Makes the row; `rename` hears a new name of oneself. */
export function makePeople(rename: (name: string) => void): People {
  const list = h("ul", { class: "people", "aria-label": "Who is here" });
  const name = h("input", { id: "own-name", maxlength: 32, autocomplete: "nickname", required: true });
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": "own-name-title" },
    h(
      "form",
      {
        method: "dialog",
        onsubmit: () => {
          if (name.value.trim() !== "") rename(name.value.trim());
        },
      },
      h("h2", { id: "own-name-title" }, "Your name"),
      h("label", { for: "own-name" }, "How the others see you"),
      name,
      h("p", { class: "dialog-actions" }, h("button", { class: "main", type: "submit" }, "Keep")),
    ),
  );
  const own = h("button", { class: "circle", type: "button", onclick: () => dialog.showModal() });
  const count = h("span", { class: "sr-only", role: "status" });
  const element = h("div", { class: "people-row" }, list, count, dialog);

  return {
    element,
    show(self, others) {
      own.className = `circle own person-${self.color}`;
      own.title = self.isVouched ? `${self.name} (you)` : `${self.name} (you): change your name`;
      own.replaceChildren(...letters(self.name, own.title));
      own.disabled = self.isVouched;
      if (!dialog.open) name.value = self.name;
      const circles = others.slice(0, CIRCLES_MAX).map((person) => h("li", {}, circle(person)));
      const more = others.length - circles.length;
      if (more > 0) circles.push(h("li", {}, h("span", { class: "circle more", title: `${more} more` }, `+${more}`)));
      const first = list.firstElementChild ?? h("li", {}, own);
      // One's own button stays where it is, so that it keeps the focus.
      if (first.parentElement === null) list.append(first);
      while (list.children.length > 1) list.lastElementChild?.remove();
      list.append(...circles);
      say(count, others.length === 0 ? "Nobody else is here" : `${others.length} more here`);
    },
  };
}

function circle(person: Person): HTMLElement {
  const title = person.isVouched ? `${person.name}, signed in` : person.name;
  const element = h("span", { class: `circle person-${person.color}`, title }, ...letters(person.name, title));
  if (!person.caret && !person.card) element.classList.add("is-idle");
  return element;
}

/** Two letters to see, and the whole to hear. */
function letters(name: string, title: string): HTMLElement[] {
  return [h("span", { "aria-hidden": "true" }, initials(name)), h("span", { class: "sr-only" }, title)];
}

/** Says that one may read but not write. */
export function makeReaderSign(): HTMLElement {
  return h("span", { class: "reader", hidden: true, title: "Your token lets you read this document" }, icon("eye"), "Reading");
}
