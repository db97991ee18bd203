/** Tokens: wrong ones, those that run out, and those that only let read. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { launchChromium, type Chromium } from "../../typescript/browser/chromium";
import { Server } from "./server";
import { Window } from "./window";

let server: Server;
let ann: Chromium;
let bo: Chromium;

beforeAll(async () => {
  [server, ann, bo] = await Promise.all([Server.locked(), launchChromium(), launchChromium()]);
});
afterAll(async () => {
  await Promise.all([ann?.close(), bo?.close()]);
  await server?.close();
});

async function enterToken({ page }: Window, token: string): Promise<void> {
  await page.getByLabel("Token", { exact: true }).fill(token);
  await page.getByRole("button", { name: "Go on" }).click();
}

test("a token leaves the address at once, and the page says who one is", async () => {
  const token = await server.token({ sub: "ann", name: "Ann Example", docs: ["**=write"] });
  const window = await Window.open(ann.context, server, "address", token);
  expect(window.page.url()).toBe(`${server.url}/#address`);
  await window.page.getByTitle("Ann Example (you)").waitFor();
  await window.type("Here", "end");
  await window.saved();
  await window.page.reload();
  await window.holds("Here");
  await window.page.close();
});

test("without a token, with a wrong one and with a right one", async () => {
  const window = await Window.visit(ann.context, server, "wrong");
  await window.page.getByRole("heading", { name: "A token is needed" }).waitFor();
  await enterToken(window, "nonsense");
  await window.page.getByRole("heading", { name: "A token is needed" }).waitFor();
  await window.page.getByRole("button", { name: "Later" }).click();
  await window.notice("token").waitFor();
  await window.page.getByRole("button", { name: "Enter a token" }).click();
  await enterToken(window, await server.token({ sub: "ann", docs: ["**=write"] }));
  await window.ready();
  await window.type("In", "end");
  await window.saved();
  expect(await window.notice("token").isVisible()).toBe(false);
  await window.page.close();
});

test("a token that runs out is asked for anew, and nothing typed meanwhile is lost", async () => {
  // Long enough for a page to open here, several times over.
  const before = Date.now();
  const first = await Window.open(ann.context, server, "renewal", await server.token({ sub: "ann", docs: ["**=write"] }));
  await first.page.close();
  const ttl = `${Math.max(20, Math.ceil((5 * (Date.now() - before)) / 1000))}s`;
  const window = await Window.open(ann.context, server, "renewal", await server.token({ sub: "ann", docs: ["**=write"], ttl }));
  await window.type("Before. ", "end");
  await window.saved();
  await window.page.getByRole("heading", { name: "A token is needed" }).waitFor();
  await window.page.getByRole("button", { name: "Later" }).click();
  await window.type("Meanwhile. ", "end");
  await window.page.locator('.light[data-safety="local"]').waitFor();
  await window.page.getByRole("button", { name: "Enter a token" }).click();
  await enterToken(window, await server.token({ sub: "ann", docs: ["**=write"] }));
  await window.saved();
  await window.type("After.", "end");
  await window.saved();
  const other = await Window.open(bo.context, server, "renewal", await server.token({ sub: "bo", docs: ["**=read"] }));
  await other.holds("Before. Meanwhile. After.");
  await Promise.all([window.page.close(), other.page.close()]);
});

test("a token that was replaced before it ran out is renewed on the live connection, and nobody notices", async () => {
  const before = Date.now();
  const first = await Window.open(ann.context, server, "silent", await server.token({ sub: "ann", docs: ["**=write"] }));
  await first.page.close();
  const seconds = Math.max(20, Math.ceil((5 * (Date.now() - before)) / 1000));
  const short = await server.token({ sub: "ann", docs: ["**=write"], ttl: `${seconds}s` });
  const window = await Window.open(ann.context, server, "silent", short);
  const connection = await window.session();
  // What asks for tokens by itself, as a single sign-on does, leaves the next one where this tab keeps its own.
  const next = await server.token({ sub: "ann", docs: ["**=write"] });
  await window.page.evaluate((token) => sessionStorage.setItem("syncline.token", token), next);
  let typed = "";
  // Three seconds past the end, by which the server has closed what was not renewed.
  for (const end = expiryOf(short) + 3_000; Date.now() < end; typed += "x") {
    await window.type("x", "end");
    await window.page.waitForTimeout(500);
  }
  await window.saved();
  expect(await window.session()).toBe(connection);
  expect(await window.page.getByRole("heading", { name: "A token is needed" }).isVisible()).toBe(false);
  const other = await Window.open(bo.context, server, "silent", await server.token({ sub: "bo", docs: ["**=read"] }));
  await other.holds(typed);
  await Promise.all([window.page.close(), other.page.close()]);
});

function expiryOf(token: string): number {
  const { exp } = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as { exp: number };
  return exp * 1000;
}

test("a reader sees everything, is told when he types, and changes nothing", async () => {
  const writer = await Window.open(ann.context, server, "shared", await server.token({ sub: "ann", docs: ["**=write"] }));
  await writer.type("For all to read", "end");
  await writer.page.getByLabel("Add a card").fill("A card");
  await writer.page.keyboard.press("Enter");
  await writer.saved();
  const reader = await Window.open(bo.context, server, "shared", await server.token({ sub: "bo", docs: ["shared=read"] }));
  await reader.holds("For all to read");
  await reader.page.getByText("Reading", { exact: true }).waitFor();
  await reader.type("x", "end");
  await reader.notice("reader").getByText("You may read this document, but not change it.").waitFor();
  expect(await reader.shown()).toBe("For all to read");
  expect(await reader.page.getByRole("button", { name: "Delete" }).isVisible()).toBe(false);
  expect(await reader.page.getByLabel("Add a card").isVisible()).toBe(false);
  await writer.type(", still", "end");
  await reader.holds("For all to read, still");

  await reader.page.goto(`${server.url}/#secret`);
  await reader.notice("refused").getByText("You have no access to “secret”.").waitFor();
  await Promise.all([writer.page.close(), reader.page.close()]);
});

test("a refused edit is kept with its code, and is made anew or dropped", async () => {
  const write = { sub: "ann", docs: ["**=write"] };
  const window = await Window.open(ann.context, server, "refused", await server.token(write));
  await window.type("Taken. ", "end");
  await window.saved();

  // While it was away it has lost the right to write.
  const refuse = async (text: string): Promise<void> => {
    await window.switchNetwork("off");
    await window.type(text, "end");
    await window.kept();
    await enter(window, await server.token({ sub: "ann", docs: ["**=read"] }));
    await window.contains(text.trim());
    await window.switchNetwork("on");
    await window.page.getByRole("heading", { name: "Not taken by the server" }).waitFor();
    await window.page.locator('.draft[data-code="forbidden"]').getByText(text.trim()).waitFor();
    await window.holds("Taken. ");
    expect(await window.shown()).toBe("Taken. ");
  };

  await refuse("Once. ");
  await enter(window, await server.token(write));
  await window.page.getByText("Reading", { exact: true }).waitFor({ state: "hidden" });
  await window.page.getByRole("button", { name: "Make anew" }).click();
  await window.holds("Taken. Once. ");
  await window.saved();
  expect(await window.page.locator(".draft").count()).toBe(0);
  await window.editor.focus();
  await window.page.keyboard.press("Control+a");
  await window.page.keyboard.type("Taken. ");
  await window.saved();

  await refuse("Twice. ");
  await window.page.getByRole("button", { name: "Drop" }).click();
  await window.page.locator(".draft").waitFor({ state: "detached" });
  await window.page.reload();
  await window.holds("Taken. ");
  expect(await window.page.locator(".draft").count()).toBe(0);
  await window.page.close();
});

/** Comes back by a link with another token. */
async function enter({ page }: Window, token: string): Promise<void> {
  await page.goto(`${server.url}/?token=${token}#refused`);
}
