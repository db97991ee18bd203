/**
 * The others' carets and selections in the editor. They come as Automerge cursors; where one names a letter that has not
 * arrived yet, the caret stays where it was until it has.
 */
import * as Automerge from "@automerge/automerge";
import { StateEffect, StateField, type Extension, type Range, type Text } from "@codemirror/state";
import { Decoration, EditorView, WidgetType, type DecorationSet } from "@codemirror/view";
import { h } from "./dom";
import type { Board } from "./model";
import type { Caret, Person } from "./visitor";

/** Where somebody is, in the editor's positions. */
interface Placed {
  readonly person: Person;
  readonly anchor: number;
  readonly head: number;
}

const placed = StateEffect.define<readonly Placed[]>();

/** Shows carets; they move along with the text between two placings. */
const field = StateField.define<readonly Placed[]>({
  create: () => [],
  update(value, transaction) {
    for (const effect of transaction.effects) if (effect.is(placed)) return effect.value;
    if (!transaction.docChanged) return value;
    return value.map(({ person, anchor, head }) => ({
      person,
      anchor: transaction.changes.mapPos(anchor),
      head: transaction.changes.mapPos(head),
    }));
  },
  provide: (own) => EditorView.decorations.from(own, (value) => (view) => decorate(value, view.state.doc)),
});

/** Goes into the editor's extensions. */
export const carets: Extension = field;

/** Places everybody anew. */
export function placeCarets(view: EditorView, board: Automerge.Doc<Board>, people: readonly Person[]): void {
  const former = new Map(view.state.field(field).map((one) => [one.person.session, one]));
  const value = people.flatMap((person): Placed[] => {
    if (person.caret === undefined) return [];
    const here = resolve(board, person.caret, view.state.doc.length);
    const last = former.get(person.session);
    if (here === undefined) return last === undefined ? [] : [{ ...last, person }];
    return [{ person, ...here }];
  });
  view.dispatch({ effects: placed.of(value) });
}

/** The selection as cursors that stay at their letters; undefined while the document has no text. */
export function readCaret(view: EditorView, board: Automerge.Doc<Board>): Caret | undefined {
  const { anchor, head } = view.state.selection.main;
  try {
    const first = Automerge.getCursor(board, ["text"], anchor);
    return { anchor: first, head: head === anchor ? first : Automerge.getCursor(board, ["text"], head) };
  } catch {
    return undefined;
  }
}

function resolve(board: Automerge.Doc<Board>, caret: Caret, length: number): { anchor: number; head: number } | undefined {
  try {
    const head = Automerge.getCursorPosition(board, ["text"], caret.head);
    const anchor = caret.anchor === caret.head ? head : Automerge.getCursorPosition(board, ["text"], caret.anchor);
    return Math.max(anchor, head) > length ? undefined : { anchor, head };
  } catch {
    return undefined;
  }
}

function decorate(value: readonly Placed[], text: Text): DecorationSet {
  const ranges: Range<Decoration>[] = [];
  for (const { person, anchor, head } of value) {
    const [from, to] = [Math.min(anchor, head, text.length), Math.min(Math.max(anchor, head), text.length)];
    if (from < to) ranges.push(Decoration.mark({ class: `cm-other-selection person-${person.color}` }).range(from, to));
    ranges.push(Decoration.widget({ widget: new CaretWidget(person), side: -1 }).range(Math.min(head, text.length)));
  }
  return Decoration.set(ranges, true);
}

class CaretWidget extends WidgetType {
  readonly #person: Person;

  constructor(person: Person) {
    super();
    this.#person = person;
  }

  override eq(other: CaretWidget): boolean {
    const [one, two] = [this.#person, other.#person];
    // The name is shown for a moment whenever the caret has moved by itself, not with the text: then it is another element.
    return (
      one.session === two.session && one.name === two.name && one.color === two.color && one.caret?.head === two.caret?.head
    );
  }

  override toDOM(): HTMLElement {
    const { name, color } = this.#person;
    const flag = h("span", { class: "cm-other-name" }, name);
    return h("span", { class: `cm-other-caret person-${color}`, "aria-hidden": "true" }, "\u2060", flag, "\u2060");
  }
}
