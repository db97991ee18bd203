/**
 * What a transport must do with a WebSocket server at its other end. A test of an implementation calls `transportContract` with
 * a way to make one.
 */
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { WebSocketServer, type WebSocket } from "ws";
import type { Transport } from "../../src/transport/transport.js";

/** What a connection told, in order. */
type Told = "opened" | "text" | readonly number[] | { readonly closed: number | undefined };

/** Runs the contract. */
export function transportContract(name: string, make: () => Transport): void {
  describe(`transport contract: ${name}`, () => {
    let server: WebSocketServer | undefined;
    afterEach(async () => {
      for (const socket of server?.clients ?? []) socket.terminate();
      await new Promise<void>((closed) => (server === undefined ? closed() : server.close(() => closed())));
      server = undefined;
    });

    async function serve(): Promise<string> {
      server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
      await once(server, "listening");
      return `ws://127.0.0.1:${(server.address() as AddressInfo).port}/sync`;
    }

    async function accepted(): Promise<WebSocket> {
      const [socket] = (await once(server!, "connection")) as [WebSocket];
      return socket;
    }

    it("h1 opens with the subprotocol, and brings frames in order both ways", async () => {
      const url = await serve();
      const socket = accepted();
      const ear = listen();
      const connection = make().connect(url, ear);
      expect(ear.told).toEqual([]);
      // Not open yet: it is dropped.
      connection.send(new Uint8Array([0]));
      const there = await socket;
      expect(there.protocol).toBe("syncline.v1");
      await ear.until(1);
      const heard: Buffer[] = [];
      const both = new Promise<void>((done) => there.on("message", (data: Buffer) => void (heard.push(data) === 2 && done())));
      connection.send(new Uint8Array([1, 255]));
      connection.send(new Uint8Array());
      await both;
      expect(heard.map((data) => [...data])).toEqual([[1, 255], []]);
      there.send(new Uint8Array([2]));
      there.send(new Uint8Array([3, 0]));
      await ear.until(3);
      expect(ear.told).toEqual(["opened", [2], [3, 0]]);
      connection.close();
    });

    it("tells of a text message", async () => {
      const url = await serve();
      const socket = accepted();
      const ear = listen();
      const connection = make().connect(url, ear);
      (await socket).send("text");
      await ear.until(2);
      expect(ear.told).toEqual(["opened", "text"]);
      connection.close();
    });

    it("tells the close code once, and nothing after it", async () => {
      const url = await serve();
      const socket = accepted();
      const ear = listen();
      const connection = make().connect(url, ear);
      (await socket).close(4401, "expired");
      await ear.until(2);
      connection.send(new Uint8Array([1]));
      connection.close();
      expect(ear.told).toEqual(["opened", { closed: 4401 }]);
    });

    it("tells of a connection that is cut, and of one that is never made", async () => {
      const url = await serve();
      const socket = accepted();
      const cut = listen();
      make().connect(url, cut);
      await cut.until(1);
      (await socket).terminate();
      await cut.until(2);
      expect(cut.told).toEqual(["opened", { closed: expect.toSatisfy(isNoCloseCode) }]);
      await new Promise<void>((closed) => server!.close(() => closed()));
      server = undefined;
      const never = listen();
      make().connect(url, never);
      await never.until(1);
      expect(never.told).toEqual([{ closed: expect.toSatisfy(isNoCloseCode) }]);
    });

    it("tells nothing more once it was closed from here, and the other side hears 1000", async () => {
      const url = await serve();
      const socket = accepted();
      const ear = listen();
      const connection = make().connect(url, ear);
      const there = await socket;
      await ear.until(1);
      const closed = once(there, "close");
      connection.close();
      there.send(new Uint8Array([1]));
      connection.send(new Uint8Array([2]));
      const [code] = (await closed) as [number];
      expect([code, ear.told]).toEqual([1000, ["opened"]]);
    });
  });
}

/** What is reported where there was no close frame. */
function isNoCloseCode(code: unknown): boolean {
  return code === undefined || code === 1006;
}

function listen() {
  const told: Told[] = [];
  const waiting: Array<{ readonly count: number; readonly done: () => void }> = [];
  const tell = (what: Told): void => {
    told.push(what);
    for (const { count, done } of waiting) if (told.length >= count) done();
  };
  return {
    told,
    opened: () => tell("opened"),
    text: () => tell("text"),
    frame: (bytes: Uint8Array) => tell([...bytes]),
    closed: (code: number | undefined) => tell({ closed: code }),
    /** Resolves when so much was told. */
    until: (count: number) => new Promise<void>((done) => (told.length >= count ? done() : waiting.push({ count, done }))),
  };
}
