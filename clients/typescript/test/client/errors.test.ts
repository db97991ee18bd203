/** What an app is told of a client that cannot work. */
import { expect, test, vi } from "vitest";
import { Client, type ClientError } from "../../src/index.js";
import type { Transport } from "../../src/transport/transport.js";

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
