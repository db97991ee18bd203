import { describe, expect, it } from "vitest";
import { Client } from "../../src/client.js";
import { ChangeError } from "../../src/status.js";
import { TestServer } from "../server/server.js";

it("a client that is closed opens nothing any more, and says so", async () => {
  const client = new Client({ url: "ws://test", transport: new TestServer().transport() });
  await client.close();
  expect(() => client.open("note")).toThrow(ChangeError);
});

describe("a closed handle is never durable", () => {
  const open = () => {
    const client = new Client({ url: "ws://test", transport: new TestServer().transport(), offline: true });
    return { client, handle: client.open("note", { initial: { text: "unsent" } }) };
  };
  const isClosed = { kind: "closed" };

  it("if it is closed before the document is there", async () => {
    const { client, handle } = open();
    const durable = handle.whenDurable();
    const closing = handle.close();
    await expect(durable).rejects.toMatchObject(isClosed);
    await closing;
    await client.close();
  });

  it("if it is asked later", async () => {
    const { client, handle } = open();
    await handle.whenReady();
    await handle.close();
    await expect(handle.whenDurable()).rejects.toMatchObject(isClosed);
    await client.close();
  });

  it("if the client is closed, and has let go of the document", async () => {
    const { client, handle } = open();
    await handle.whenReady();
    await client.close();
    await expect(handle.whenDurable()).rejects.toMatchObject(isClosed);
  });

  it("if the client is closed before the document is there", async () => {
    const { client, handle } = open();
    const durable = expect(handle.whenDurable()).rejects.toMatchObject(isClosed);
    await client.close();
    await durable;
  });
});
