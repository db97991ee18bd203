/** The refused edits: what each would have written, why it was refused, and the two ways out: anew, or away. */
import type { DocHandle, Draft } from "@syncline/client";
import { h } from "./dom";
import { difference, readCards, readText, type Board } from "./model";

/** An excerpt up to here; the draft itself is kept whole. */
const EXCERPT_MAX = 160;

const WHY: Readonly<Record<string, string>> = {
  forbidden: "You may read this document, but not change it.",
  limit: "It is larger than the server takes at once.",
  actor_conflict: "Another window wrote in this one's place.",
  foreign_actor: "It was written under somebody else's name.",
  after_reject: "It stands on a change that was refused.",
  quarantined: "It was taken out of the document before.",
};

/** The list of drafts. */
export interface DraftList {
  readonly element: HTMLElement;
  show(): void;
}

/** Makes the list for a document; `said` hears what did not go well. */
export function makeDrafts(handle: DocHandle<Board>, said: (text: string) => void): DraftList {
  const list = h("ul", { class: "draft-list" });
  const element = h(
    "section",
    { class: "drafts", "aria-labelledby": "drafts-title", hidden: true },
    h("h2", { id: "drafts-title" }, "Not taken by the server"),
    list,
  );

  const makeAnew = (draft: Draft): void => {
    if (!handle.drafts.makeAnew(draft.id)) said("The draft does not fit into the document any more. It is kept.");
    show();
  };
  const drop = (draft: Draft): void => {
    handle.drafts.drop(draft.id);
    show();
  };

  const item = (draft: Draft): HTMLElement =>
    h(
      "li",
      { class: "draft", "data-code": draft.code },
      h("p", {}, WHY[draft.code] ?? draft.reason, " ", h("code", { title: draft.reason }, draft.code)),
      h("blockquote", {}, excerpt(handle, draft)),
      h(
        "p",
        { class: "draft-actions" },
        h("button", { class: "small", type: "button", onclick: () => makeAnew(draft) }, "Make anew"),
        h("button", { class: "small", type: "button", onclick: () => drop(draft) }, "Drop"),
      ),
    );

  const show = (): void => {
    const drafts = handle.drafts.list();
    element.hidden = drafts.length === 0;
    list.replaceChildren(...drafts.map(item));
  };
  return { element, show };
}

/** What the draft would do, in a few words. */
function excerpt(handle: DocHandle<Board>, draft: Draft): string {
  const preview = handle.drafts.preview(draft.id);
  const count = draft.changes === 1 ? "1 change" : `${draft.changes} changes`;
  if (preview === undefined || !handle.isReady) return count;
  const [now, then] = [handle.doc(), preview];
  const { from, to, insert } = difference(readText(now) ?? "", readText(then) ?? "");
  if (insert !== "") return cut(insert);
  if (to > from) return `takes ${to - from} characters out`;
  const known = new Map(readCards(now).map((card) => [card.id, card]));
  const written = readCards(then).find((card) => known.get(card.id)?.text !== card.text);
  return written === undefined ? count : cut(written.text);
}

function cut(text: string): string {
  return text.length > EXCERPT_MAX ? `${text.slice(0, EXCERPT_MAX)}…` : text;
}
