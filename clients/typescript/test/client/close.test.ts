import { expect, it } from "vitest";
import { Client } from "../../src/client.js";
import { ChangeError } from "../../src/status.js";
import { TestServer } from "../server/server.js";

it("a client that is closed opens nothing any more, and says so", async () => {
  const client = new Client({ url: "ws://test", transport: new TestServer().transport() });
  await client.close();
  expect(() => client.open("note")).toThrow(ChangeError);
});
