// @vitest-environment happy-dom
import { expect, it } from "vitest";
import { Client } from "../../src/client.js";
import { TestServer } from "../server/server.js";

/** Whether the page would ask before it is left. */
function asks(): boolean {
  return !globalThis.dispatchEvent(new Event("beforeunload", { cancelable: true }));
}

it("a page that is left asks while changes are not durable, those of a closed document too, until the guard ends", async () => {
  const server = new TestServer();
  const client = new Client({ url: "ws://test", transport: server.transport(), groupMs: 1 });
  const unguard = client.guardUnload();
  const handle = client.open<{ text: string }>("note", { initial: { text: "" } });
  await handle.whenReady();
  await handle.whenDurable();
  expect(asks()).toBe(false);
  client.goOffline();
  handle.change((doc) => void (doc.text = "unsent"));
  expect(asks()).toBe(true);
  await handle.close();
  expect(asks()).toBe(true);
  client.goOnline();
  await client.whenDurable();
  expect(asks()).toBe(false);
  client.goOffline();
  const again = client.open<{ text: string }>("note", { initial: { text: "" } });
  await again.whenReady();
  again.change((doc) => void (doc.text = "more"));
  expect(asks()).toBe(true);
  unguard();
  expect(asks()).toBe(false);
  await client.close();
});
