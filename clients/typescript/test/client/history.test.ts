import { expect, it } from "vitest";
import { Client } from "../../src/client.js";
import { TestServer } from "../server/server.js";

interface Note {
  text: string;
  tags: string[];
}

it("a document can be seen as it was, and changed as it was: nothing that came after is undone", async () => {
  const server = new TestServer();
  const client = new Client({ url: "ws://test", transport: server.transport(), groupMs: 1 });
  const handle = client.open<Note>("note", { initial: { text: "", tags: [] } });
  await handle.whenReady();
  handle.change((doc) => void (doc.text = "former"));
  const heads = handle.heads();
  handle.change((doc) => void doc.tags.push("later"));
  expect(handle.view(heads)).toEqual({ text: "former", tags: [] });
  expect(() => handle.changeAt(heads, (doc) => void (doc.text = `${doc.text} ${doc.tags.length}`))).not.toThrow();
  expect(handle.doc()).toEqual({ text: "former 0", tags: ["later"] });
  expect(handle.heads()).toHaveLength(2);
  expect(handle.changeAt(heads, () => undefined)).toBeNull();
  await handle.whenDurable();
  expect(server.doc<Note>("note")).toEqual({ text: "former 0", tags: ["later"] });
  await client.close();
});
