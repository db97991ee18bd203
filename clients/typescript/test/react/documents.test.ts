/** The documents in use, without React. */
import { expect, it, vi } from "vitest";
import { Client } from "../../src/client.js";
import { documentsOf } from "../../src/react/documents.js";
import { TestServer } from "../server/server.js";

interface Note {
  text: string;
}

it("does not forget a document that is in use again between two ends of its former use", async () => {
  const client = new Client({ url: "ws://test", transport: new TestServer().transport(), groupMs: 0 });
  const documents = documentsOf(client);
  const use = (): (() => void) => documents.use("note", { text: "empty" }, () => undefined);
  // Each leave is followed by an end as soon as nothing else is to be done; what is asked for in between comes in between.
  use()();
  const back = new Promise<() => void>((resolve) => setTimeout(() => resolve(use()), 0));
  use()();
  const leave = await back;
  const text = (): string | undefined => documents.view<Note>("note").doc?.text;
  await vi.waitFor(() => expect(text()).toBe("empty"), { timeout: 60_000 });
  leave();
  await vi.waitFor(() => expect(text()).toBeUndefined(), { timeout: 60_000 });
  await client.close();
});
