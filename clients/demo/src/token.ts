/**
 * The token: it comes with the address or is typed in, is kept as long as the tab, and is asked for when the server does not take
 * it. A token that has run out is not sent again: the client waits until there is another. Whatever gets tokens by itself puts the
 * next one into `sessionStorage` under `syncline.token` in time, and nobody is asked.
 */
import { h } from "./dom";
import { keep, recall } from "./keep";

/** The token of this tab, and the way to a new one. */
export class TokenDesk {
  /** A line that says that a token is wanted, and the dialog that takes it. */
  readonly element: HTMLElement;
  /** What the client calls; undefined for a server in development mode, as far as the page knows. */
  readonly source: (() => Promise<string>) | undefined;

  readonly #given: () => void;
  /** Whoever asked last waits for it; the client asks again after a while and has then forgotten that it had. */
  #answer: ((token: string) => void) | undefined;
  /** Who has said "Later" is not asked again by the dialog, which takes the keys from whatever is being written. */
  #isPutOff = false;
  readonly #field = h("textarea", {
    id: "token",
    rows: 4,
    required: true,
    spellcheck: "false",
    autocomplete: "off",
    autocapitalize: "off",
    onkeydown: (event: KeyboardEvent) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      this.#field.form?.requestSubmit();
    },
  });
  readonly #why = h("p", { class: "why", id: "token-why" });
  readonly #dialog: HTMLDialogElement;
  readonly #line: HTMLElement;

  /** `given` hears of a token that was typed in. */
  constructor(given: () => void) {
    this.#given = given;
    this.source = recall("tab", "token") === undefined ? undefined : () => this.#next();
    const enter = h("button", { class: "small", type: "button", onclick: () => this.#dialog.showModal() }, "Enter a token");
    const text = h("p", {}, "Not connected: the server wants a token.");
    this.#line = h("div", { class: "notice warn", "data-notice": "token", hidden: true }, text, enter);
    this.#dialog = this.#makeDialog();
    this.element = h("div", { class: "notices", role: "status" }, this.#line, this.#dialog);
  }

  /** Asks for a token; whoever has put that off sees the line only. */
  ask(why: string): void {
    this.#why.textContent = why;
    this.#line.hidden = false;
    if (!this.#dialog.open && !this.#isPutOff) this.#dialog.showModal();
  }

  /** A token was accepted: nothing is asked any more. */
  settle(): void {
    this.#isPutOff = false;
    this.#line.hidden = true;
    this.#dialog.close();
  }

  async #next(): Promise<string> {
    const token = recall("tab", "token");
    const expiresAt = readClaims(token).expiresAt ?? Infinity;
    if (token !== undefined && expiresAt > Date.now()) return token;
    this.ask("Your token has run out. What you write meanwhile is kept in this browser.");
    return new Promise((resolve) => (this.#answer = resolve));
  }

  #take(event: SubmitEvent): void {
    event.preventDefault();
    // A token has no space in it; a terminal may have broken it into lines.
    const token = this.#field.value.replaceAll(/\s/g, "");
    if (token === "") return;
    keep("tab", "token", token);
    this.#field.value = "";
    this.#isPutOff = false;
    this.#dialog.close();
    this.#answer?.(token);
    this.#answer = undefined;
    this.#given();
  }

  #makeDialog(): HTMLDialogElement {
    const putOff = (): void => void (this.#isPutOff = true);
    const later = h("button", { type: "button", onclick: () => (putOff(), this.#dialog.close()) }, "Later");
    return h(
      "dialog",
      // The key Escape is another way to say "Later".
      { class: "dialog", "aria-labelledby": "token-title", "aria-describedby": "token-why", oncancel: putOff },
      h(
        "form",
        { onsubmit: (event: SubmitEvent) => this.#take(event) },
        h("h2", { id: "token-title" }, "A token is needed"),
        this.#why,
        h("label", { for: "token" }, "Token"),
        this.#field,
        h("p", { class: "hint" }, "Whoever runs this server makes one with ", h("code", {}, "syncline token"), "."),
        h("p", { class: "dialog-actions" }, later, h("button", { class: "main", type: "submit" }, "Go on")),
      ),
    );
  }
}

/** What a token says of its bearer, unchecked: the server checks it. */
export interface Claims {
  readonly name: string | undefined;
  /** When it runs out, in milliseconds. */
  readonly expiresAt: number | undefined;
}

/** Reads a token; one that cannot be read says nothing. */
export function readClaims(token: string | undefined): Claims {
  try {
    const [, claims = ""] = (token ?? "").split(".");
    const bytes = Uint8Array.from(atob(claims.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    const { name, exp }: { name?: unknown; exp?: unknown } = JSON.parse(new TextDecoder().decode(bytes));
    return {
      name: typeof name === "string" ? name : undefined,
      expiresAt: typeof exp === "number" ? exp * 1000 : undefined,
    };
  } catch {
    return { name: undefined, expiresAt: undefined };
  }
}
