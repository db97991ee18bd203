/**
 * The frame of the page: the head with the document's name, the switch and the light, the foot with history and figures, and in
 * between the document that the address names. One client serves all documents.
 */
import { type Client, type ClientError, type ConnectionStatus } from "@syncline/client";
import { h, icon } from "./dom";
import { makeGuard } from "./guard";
import { keep, recall } from "./keep";
import { makeNotices } from "./notices";
import type { Self } from "./people";
import { FIRST_DOCUMENT, isDocumentId, readRoute } from "./route";
import { makeFigures, makeNetwork } from "./standing";
import { readClaims, type TokenDesk } from "./token";
import { showDocument, type DocumentView } from "./view";
import { COLORS, inventName } from "./visitor";

/** How often the figures are looked at while the page is in sight. */
const FIGURES_EVERY_MS = 500;

/** Whether the switch was off when this tab was last here. */
export function wasSwitchedOff(): boolean {
  return recall("tab", "offline") === "yes";
}

/** Fills `root` and follows the address from then on. */
export function showPage(root: HTMLElement, client: Client, desk: TokenDesk): void {
  new Page(root, client, desk);
}

class Page {
  readonly #client: Client;
  readonly #desk: TokenDesk;
  readonly #storageFailed: () => void;
  readonly #notices = makeNotices();
  readonly #figures = makeFigures();
  readonly #network = makeNetwork((isOnline) => this.#set(isOnline));
  readonly #name = h("input", {
    id: "document",
    class: "document-name",
    spellcheck: "false",
    autocomplete: "off",
    autocapitalize: "off",
    maxlength: 128,
    onchange: () => this.#go(this.#name.value),
  });
  readonly #head = h("div", { class: "head-document" });
  readonly #main = h("main", { class: "board" });
  readonly #foot = h("div", { class: "foot-document" });

  #view: DocumentView | undefined;
  #self: Self = recallSelf();

  constructor(root: HTMLElement, client: Client, desk: TokenDesk) {
    this.#client = client;
    this.#desk = desk;
    this.#storageFailed = makeGuard(client, () => this.#notices.hide("storage"));
    const brand = h("a", { class: "brand", href: `#${FIRST_DOCUMENT}`, title: "Syncline" }, icon("wave"), h("h1", {}, "Syncline"));
    const where = h(
      "form",
      { class: "where", onsubmit: (event: SubmitEvent) => (event.preventDefault(), this.#name.blur()) },
      h("label", { for: "document", class: "sr-only" }, "Document"),
      this.#name,
    );
    root.replaceChildren(
      h("header", { class: "head" }, brand, where, this.#head, this.#network.element),
      h("div", {}, desk.element, this.#notices.element),
      this.#main,
      h("footer", { class: "foot" }, this.#foot, this.#figures.element),
    );
    client.on("status", (status) => this.#stand(status));
    client.on("error", (error) => this.#fail(error));
    this.#stand(client.status);
    setInterval(() => this.#count(), FIGURES_EVERY_MS);
    this.#count();
    addEventListener("hashchange", () => this.#open());
    this.#open();
  }

  #open(): void {
    const { documentId, address } = readRoute(location.href);
    if (location.href !== address) history.replaceState(null, "", address);
    this.#view?.close();
    this.#name.value = documentId;
    this.#name.setCustomValidity("");
    document.title = `${documentId} · Syncline`;
    const view = showDocument(documentId, {
      client: this.#client,
      notices: this.#notices,
      self: this.#self,
      remember: (self) => this.#remember(self),
      refused: (id, code, reason) => this.#refused(id, code, reason),
    });
    this.#notices.hide("refused");
    this.#view = view;
    // For the console: `syncline.handle.doc()`.
    Object.assign(globalThis, { syncline: { client: this.#client, handle: view.handle } });
    this.#head.replaceChildren(...view.head);
    this.#main.replaceChildren(...view.main);
    this.#foot.replaceChildren(...view.foot);
  }

  #go(documentId: string): void {
    const wanted = documentId.trim();
    const isFit = isDocumentId(wanted);
    this.#name.setCustomValidity(isFit ? "" : "Letters, digits and . _ - are allowed, with / between parts.");
    if (isFit) location.hash = wanted;
    else this.#name.reportValidity();
  }

  #set(isOnline: boolean): void {
    keep("tab", "offline", isOnline ? undefined : "yes");
    if (isOnline) this.#client.goOnline();
    else this.#client.goOffline();
    this.#stand(this.#client.status);
  }

  #stand(status: ConnectionStatus): void {
    this.#network.show(status, wasSwitchedOff());
    if (status.state === "connected") {
      this.#desk.settle();
      this.#notices.hide("rejected");
    }
    if (status.state !== "rejected") return;
    if (status.code === UNAUTHORISED) {
      this.#desk.ask(`The server does not let this page in: ${status.reason}.`);
    } else {
      const again = { label: "Try again", run: () => this.#client.goOnline() };
      const text = `The server has ended the connection: ${status.reason} (${status.code})`;
      this.#notices.show("rejected", { text, tone: "warn", actions: [again] });
    }
  }

  #fail(error: ClientError): void {
    const tone = "warn";
    switch (error.kind) {
      case "held": {
        const adopt = { label: "Send them as mine", run: () => (this.#notices.hide("held"), void this.#client.adoptQueues()) };
        const text = "Somebody else has left changes in this browser that were never sent.";
        return this.#notices.show("held", { text, tone, actions: [adopt], closes: true });
      }
      case "storage":
        this.#storageFailed();
        return this.#notices.show("storage", {
          text: "This browser does not keep what you write. It is sent all the same; stay until it is saved.",
          tone,
          closes: true,
        });
      default:
        console.error(error);
    }
  }

  #refused(documentId: string, code: string, reason: string): void {
    const text = code === "forbidden" ? `You have no access to “${documentId}”.` : `“${documentId}” cannot be opened: ${reason} (${code})`;
    const other = { label: "Open another", run: () => (this.#name.focus(), this.#name.select()) };
    this.#notices.show("refused", { text, tone: "warn", actions: [other] });
  }

  #remember(self: Self): void {
    this.#self = self;
    if (!self.isVouched) keep("browser", "name", self.name);
    keep("tab", "color", String(self.color));
  }

  #count(): void {
    if (document.visibilityState === "visible") this.#figures.show(this.#client.figures);
  }
}

/** The close code for a token that the server does not take. */
const UNAUTHORISED = 4401;

function recallSelf(): Self {
  const vouched = readClaims(recall("tab", "token")).name;
  const color = Number(recall("tab", "color") ?? Math.floor(Math.random() * COLORS)) % COLORS;
  return {
    name: vouched ?? recall("browser", "name") ?? inventName(Math.random),
    color: Number.isInteger(color) ? color : 0,
    isVouched: vouched !== undefined,
  };
}
