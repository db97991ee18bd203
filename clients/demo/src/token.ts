/**
 * The token: it comes with the address or is typed in, is kept as long as the tab, and is asked for when the server does not take
 * it. A token that has run out is not sent again: the client waits until there is another.
 */
import { h } from "./dom";
import { keep, recall } from "./keep";

/** The token of this tab, and the way to a new one. */
export interface TokenDesk {
  /** The dialog that asks; it is put into the page once. */
  readonly element: HTMLElement;
  /** What the client calls; undefined for a server in development mode, as far as the page knows. */
  readonly source: (() => Promise<string>) | undefined;
  /** Shows the dialog. */
  ask(why: string): void;
  /** Takes the dialog away, because a token was accepted. */
  settle(): void;
}

/** Makes the desk. `given` hears of a token that was typed in. */
export function makeTokenDesk(given: () => void): TokenDesk {
  const initial = recall("tab", "token");
  const waiting = new Set<(token: string) => void>();
  const field = h("textarea", {
    id: "token",
    rows: 4,
    required: true,
    spellcheck: "false",
    autocomplete: "off",
    autocapitalize: "off",
  });
  const why = h("p", { class: "why", id: "token-why" });
  const take = (event: SubmitEvent): void => {
    event.preventDefault();
    const token = field.value.trim();
    if (token === "") return;
    keep("tab", "token", token);
    field.value = "";
    dialog.close();
    for (const resolve of waiting) resolve(token);
    waiting.clear();
    given();
  };
  const later = h("button", { type: "button", onclick: () => dialog.close() }, "Later");
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": "token-title", "aria-describedby": "token-why" },
    h(
      "form",
      { onsubmit: take },
      h("h2", { id: "token-title" }, "A token is needed"),
      why,
      h("label", { for: "token" }, "Token"),
      field,
      h("p", { class: "hint" }, "Whoever runs this server makes one with ", h("code", {}, "syncline token"), "."),
      h("p", { class: "dialog-actions" }, later, h("button", { class: "main", type: "submit" }, "Go on")),
    ),
  );

  const ask = (reason: string): void => {
    why.textContent = reason;
    if (!dialog.open) dialog.showModal();
  };

  const source = async (): Promise<string> => {
    const token = recall("tab", "token");
    if (token !== undefined && !(Number(readClaims(token).expiresAt) <= Date.now())) return token;
    ask("Your token has run out. What you write meanwhile is kept in this browser.");
    return new Promise((resolve) => waiting.add(resolve));
  };

  return {
    element: dialog,
    source: initial === undefined ? undefined : source,
    ask,
    settle() {
      if (waiting.size === 0 && dialog.open) dialog.close();
    },
  };
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
