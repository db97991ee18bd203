/** What an app is told of a client that cannot work. */
import { expect, test, vi } from "vitest";
import { Client, type ClientError } from "../../src/index.js";
import type { Transport, TransportEvents } from "../../src/transport/transport.js";
import { TestServer } from "../server/server.js";

test("an error goes to the console as long as nobody listens", { timeout: 60_000 }, async () => {
  const said = vi.spyOn(console, "error").mockImplementation(() => undefined);
  const transport: Transport = {
    connect: () => {
      throw new Error("there is no network here");
    },
  };
  const client = new Client({ url: "ws://test", transport });
  try {
    await vi.waitFor(() => expect(said).toHaveBeenCalled(), { timeout: 50_000 });
    expect((said.mock.calls[0] as [ClientError])[0].kind).toBe("protocol");

    const heard: ClientError[] = [];
    client.on("error", (error) => heard.push(error));
    said.mockClear();
    await vi.waitFor(() => expect(heard.length).toBeGreaterThan(0), { timeout: 50_000 });
    expect(said).not.toHaveBeenCalled();
  } finally {
    await client.close();
    said.mockRestore();
  }
});

test("who waits is told when the server refuses the document or the connection for good, and the changes stay", async () => {
  const server = new TestServer();
  const refused: TransportEvents[] = [];
  let isRefusing = false;
  const transport: Transport = {
    connect: (url, hears) => {
      if (!isRefusing) return server.transport().connect(url, hears);
      refused.push(hears);
      setTimeout(() => hears.closed(4403));
      return { send: () => undefined, close: () => undefined };
    },
  };
  const client = new Client({ url: "ws://test", transport, groupMs: 1 });
  const notes = client.open<{ text: string }>("notes", { initial: { text: "" } });
  await notes.whenReady();
  await notes.whenDurable();
  client.goOffline();
  notes.change((doc) => void (doc.text = "kept"));
  const durable = notes.whenDurable();
  const other = client.open("other").whenReady();

  isRefusing = true;
  client.goOnline();
  await expect(durable).rejects.toThrow("the connection is refused (4403)");
  await expect(other).rejects.toThrow("the connection is refused (4403)");
  await expect(client.whenDurable()).rejects.toThrow("the changes are kept");
  expect(refused.length).toBe(1);

  isRefusing = false;
  server.refuse = (document) => (document === "other" ? "forbidden" : undefined);
  client.goOnline();
  await notes.whenDurable();
  expect(server.doc<{ text: string }>("notes").text).toBe("kept");
  await expect(client.open("other").whenReady()).rejects.toThrow("the document is refused (forbidden)");
  await client.close();
});

test("who waits for changes in a document that is refused is told, and they stay", async () => {
  const server = new TestServer();
  const client = new Client({ url: "ws://test", transport: server.transport(), groupMs: 1, offline: true });
  const notes = client.open<{ text: string }>("notes", { initial: { text: "" } });
  await notes.whenReady();
  notes.change((doc) => void (doc.text = "kept"));
  const durable = notes.whenDurable();
  server.refuse = () => "forbidden";
  client.goOnline();
  await expect(durable).rejects.toThrow("the document is refused (forbidden)");
  await expect(notes.whenDurable()).rejects.toThrow("the changes are kept");
  expect(notes.unsyncedChanges).toBeGreaterThan(0);
  await client.close();
});
