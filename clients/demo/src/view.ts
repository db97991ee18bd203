/**
 * One open document: the text, the cards, who is here, its light, its history and its drafts, kept in step with its handle. The
 * frame around it belongs to the page.
 */
import { ChangeError, type Client, type DocHandle } from "@syncline/client";
import { Cards } from "./cards";
import { h, say } from "./dom";
import { makeDrafts } from "./drafts";
import { makeEditor, type Editor } from "./editor";
import { History } from "./history";
import { EMPTY, readText, type Board } from "./model";
import type { Notices } from "./notices";
import { makePeople, makeReaderSign, type Self } from "./people";
import { bytes, makeLight } from "./standing";
import { freeColor, readPerson, type Person, type Visitor } from "./visitor";

/** What a document needs of the page. */
export interface Surroundings {
  readonly client: Client;
  readonly notices: Notices;
  /** Oneself; the view gives back another colour if that one is taken, or another name if one was typed in. */
  readonly self: Self;
  remember(self: Self): void;
  /** Somewhere else to go, where this document is refused. */
  refused(documentId: string, code: string, reason: string): void;
}

/** A document on the page. */
export interface DocumentView {
  readonly handle: DocHandle<Board>;
  /** In the page's head. */
  readonly head: readonly HTMLElement[];
  readonly main: readonly HTMLElement[];
  /** In the page's foot. */
  readonly foot: readonly HTMLElement[];
  close(): void;
}

const KINDS: Readonly<Record<ChangeError["kind"], string>> = {
  read_only: "You may read this document, but not change it.",
  not_ready: "The document is not here yet.",
  closed: "The document was closed.",
  too_large: "That is too much at once. Nothing of it was written: do it in several parts.",
  queue_full: "Too much waits to be sent. Go online before you write more.",
  drafts_full: "Too many refused edits are kept. Make them anew or drop them before you write more.",
};

/** Opens a document and shows it. */
export function showDocument(documentId: string, page: Surroundings): DocumentView {
  return new View(documentId, page);
}

class View implements DocumentView {
  readonly handle: DocHandle<Board>;
  readonly head: readonly HTMLElement[];
  readonly main: readonly HTMLElement[];
  readonly foot: readonly HTMLElement[];

  readonly #page: Surroundings;
  readonly #ends: (() => void)[] = [];
  readonly #reader = makeReaderSign();
  readonly #light = makeLight();
  readonly #people = makePeople((name) => this.#introduce({ ...this.#self, name }));
  readonly #cards = new Cards({
    change: (write) => this.#change(write),
    moved: (card) => this.#show({ card }),
    makeId,
  });
  readonly #history: History;
  readonly #drafts: ReturnType<typeof makeDrafts>;
  readonly #place = h("div", { class: "text-place" });
  readonly #wait = h("div", { class: "wait" });
  readonly #waitWord = h("p", { role: "status" });
  readonly #progress = h("progress", { max: 1, "aria-label": "Fetching the document" });

  #editor: Editor | undefined;
  #isClosed = false;
  #others: readonly Person[] = [];
  #self: Self;
  #state: Visitor;

  constructor(documentId: string, page: Surroundings) {
    this.#page = page;
    this.#self = page.self;
    this.#state = { name: page.self.name, color: page.self.color };
    this.handle = page.client.open<Board>(documentId, { initial: EMPTY });
    this.#history = new History(this.handle, {
      change: (write) => this.#change(write),
      toggled: (isOpen) => this.#toggled(isOpen),
      failed: () => page.notices.show("past", { text: "The history cannot be read.", tone: "warn", closes: true }),
    });
    this.#drafts = makeDrafts(this.handle, (text) => page.notices.show("draft", { text, tone: "warn", closes: true }));
    this.#wait.append(this.#waitWord, this.#progress);
    const text = h("h2", { id: "text-title", class: "pane-title" }, "Text");
    const cards = h("h2", { id: "cards-title", class: "pane-title" }, "Cards");
    this.head = [this.#people.element, this.#reader, this.#light.element];
    this.main = [
      h("section", { class: "pane text-pane", "aria-labelledby": "text-title" }, text, this.#place, this.#wait),
      h("section", { class: "pane cards-pane", "aria-labelledby": "cards-title" }, cards, this.#cards.element, this.#drafts.element),
      this.#history.past,
    ];
    this.foot = [this.#history.button, this.#history.bar];
    this.#follow();
  }

  close(): void {
    this.#isClosed = true;
    for (const end of this.#ends) end();
    this.#editor?.close();
    this.#history.close();
    for (const name of ["reader", "write", "draft", "shape", "past"]) this.#page.notices.hide(name);
    // Whatever fails in it was told as an error of the client.
    void this.handle.close().catch(() => undefined);
  }

  #follow(): void {
    const { handle } = this;
    this.#ends.push(
      handle.on("change", () => this.#present()),
      handle.on("status", () => {
        this.#begin();
        this.#standing();
      }),
      handle.on("progress", () => this.#standing()),
      handle.on("safety", ({ safety, unsyncedChanges }) => this.#light.show(safety, unsyncedChanges)),
      handle.on("draft", () => this.#drafts.show()),
      handle.presence.on("change", () => this.#meet()),
      this.#page.client.on("status", () => this.#standing()),
    );
    this.#light.show(handle.safety, handle.unsyncedChanges);
    this.#introduce(this.#self);
    this.#meet();
    this.#standing();
    handle.whenReady().then(
      () => this.#begin(),
      () => this.#standing(),
    );
  }

  /** The document is here: from now on it is edited. */
  #begin(): void {
    if (this.#editor !== undefined || !this.handle.isReady) return;
    const editor = makeEditor(this.handle, {
      moved: (caret) => this.#show({ caret }),
      typedInVain: () => this.#tellReader(),
      refused: (error) => this.#tell(error),
    });
    this.#editor = editor;
    this.#place.replaceChildren(editor.element);
    this.#drafts.show();
    this.#present();
    this.#standing();
    this.#meet();
    performance.mark("editable");
  }

  #present(): void {
    if (!this.handle.isReady) return;
    if (this.#editor === undefined) return this.#begin();
    const board = this.handle.doc();
    this.#cards.show(board);
    this.#cards.showPeople(this.#others);
    if (readText(board) === undefined) {
      this.#page.notices.show("shape", { text: "This document was made by another program: its “text” is no text.", tone: "warn" });
    }
  }

  #standing(): void {
    if (this.#isClosed) return;
    const { status } = this.handle;
    const isReader = status.state === "live" && status.access === "read";
    const isReady = this.#editor !== undefined;
    const isWritable = isReady && !isReader && status.state !== "refused" && readText(this.handle.doc()) !== undefined;
    this.#reader.hidden = !isReader;
    this.#editor?.setReadOnly(!isWritable);
    this.#cards.setReadOnly(!isWritable);
    this.#history.setReadOnly(!isWritable);
    this.#wait.hidden = isReady && status.state !== "loading";
    this.#wait.classList.toggle("is-slim", isReady);
    this.#place.hidden = !isReady;
    if (status.state === "loading") {
      this.#progress.hidden = false;
      this.#progress.max = Math.max(status.total, 1);
      this.#progress.value = status.received;
      say(this.#waitWord, `Fetching the document: ${bytes(status.received)} of ${bytes(status.total)}`);
    } else {
      this.#progress.hidden = true;
      say(this.#waitWord, this.#whyWaiting());
    }
    if (status.state === "refused") this.#page.refused(this.handle.documentId, status.code, status.reason);
  }

  #whyWaiting(): string {
    if (this.handle.status.state === "refused") return "This document cannot be shown here.";
    const { state } = this.#page.client.status;
    if (state === "offline") return "This document has not been in this browser before. It comes with the connection.";
    return state === "rejected" ? "The server does not let this page in." : "Opening…";
  }

  #change(write: (board: Board) => void): boolean {
    try {
      this.handle.change((board) => write(board));
      return true;
    } catch (error) {
      if (!(error instanceof ChangeError)) throw error;
      this.#tell(error);
      return false;
    }
  }

  #tell(error: ChangeError): void {
    if (error.kind === "read_only") this.#tellReader();
    else this.#page.notices.show("write", { text: KINDS[error.kind], tone: "warn", closes: true });
  }

  #tellReader(): void {
    this.#page.notices.show("reader", { text: KINDS.read_only, tone: "calm", closes: true });
  }

  #toggled(isOpen: boolean): void {
    for (const part of this.main) if (part !== this.#history.past) part.inert = isOpen;
  }

  /** Says to the others who one is. */
  #introduce(self: Self): void {
    this.#self = self;
    this.#page.remember(self);
    this.#people.show(self, this.#others);
    this.#show({ name: self.name, color: self.color });
  }

  /** Shows the others what is new about oneself. */
  #show(news: { readonly [Key in keyof Visitor]?: Visitor[Key] | undefined }): void {
    const { caret, card, ...rest } = { ...this.#state, ...news };
    this.#state = {
      name: rest.name ?? this.#self.name,
      color: rest.color ?? this.#self.color,
      ...(caret === undefined ? {} : { caret }),
      ...(card === undefined ? {} : { card }),
    };
    this.handle.presence.set(this.#state);
  }

  /** Takes in who else is here. Of two with one colour the one who came later takes another. */
  #meet(): void {
    this.#others = [...this.handle.presence.others.values()].map(readPerson);
    const own = this.#page.client.session ?? Infinity;
    if (this.#others.some(({ color, session }) => color === this.#self.color && session < own)) {
      const color = freeColor(this.#self.color, this.#others);
      if (color !== this.#self.color) return this.#introduce({ ...this.#self, color });
    }
    this.#people.show(this.#self, this.#others);
    this.#editor?.showPeople(this.#others);
    this.#cards.showPeople(this.#others);
  }
}

/** 16 letters that nobody else makes. */
function makeId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
