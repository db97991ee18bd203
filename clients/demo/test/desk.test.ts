// @vitest-environment happy-dom
/** When the page asks for a token, and when it leaves whoever writes in peace. */
import { beforeEach, expect, test } from "vitest";
import { keep, recall } from "../src/keep";
import { TokenDesk } from "../src/token";

const OVER = `e30.${btoa('{"exp":1}')}.signature`;

let desk: TokenDesk;

beforeEach(() => {
  keep("tab", "token", OVER);
  desk = new TokenDesk(() => undefined);
  document.body.replaceChildren(desk.element);
});

function part<Kind extends Element>(selector: string): Kind {
  const found = desk.element.querySelector<Kind>(selector);
  if (found === null) throw new Error(`there is no ${selector}`);
  return found;
}

const dialog = (): HTMLDialogElement => part("dialog");
const line = (): HTMLElement => part('[data-notice="token"]');

function press(name: string): void {
  const button = [...desk.element.querySelectorAll("button")].find(({ textContent }) => textContent === name);
  if (button === undefined) throw new Error(`there is no button ${name}`);
  button.click();
}

/** The client asks, as it does at every attempt. */
function askAgain(): Promise<string> {
  if (desk.source === undefined) throw new Error("the client has nobody to ask");
  return desk.source();
}

function enter(token: string): void {
  part<HTMLTextAreaElement>("textarea").value = token;
  part("form").dispatchEvent(new Event("submit", { cancelable: true }));
}

const waysToPutOff: readonly (readonly [string, () => void])[] = [
  ["by its button", () => press("Later")],
  ["by the key Escape", () => (dialog().dispatchEvent(new Event("cancel")), dialog().close())],
];

test.each(waysToPutOff)("the dialog that was put off %s does not come back at the next attempt", (_how, putOff) => {
  void askAgain();
  expect(dialog().open).toBe(true);
  putOff();
  void askAgain();
  desk.ask("The server does not let this page in.");
  expect(dialog().open).toBe(false);
  expect(line().hidden).toBe(false);
});

test("the line leads back to the dialog, and the attempt that waits last gets what is entered", async () => {
  void askAgain();
  press("Later");
  const waiting = askAgain();
  press("Enter a token");
  expect(dialog().open).toBe(true);
  enter("next");
  expect(dialog().open).toBe(false);
  expect(await waiting).toBe("next");
  expect(recall("tab", "token")).toBe("next");
});

test("after a token was entered, or accepted, the dialog asks again", () => {
  void askAgain();
  press("Later");
  enter(OVER);
  void askAgain();
  expect(dialog().open).toBe(true);
  press("Later");
  desk.settle();
  expect(line().hidden).toBe(true);
  void askAgain();
  expect(dialog().open).toBe(true);
});
