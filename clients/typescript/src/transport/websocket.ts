/** Frames over a WebSocket as browsers have it. Node has one of its own from version 22 on; before, see `./node`. */
import { SUBPROTOCOL } from "../wire/messages.js";
import type { Connection, Transport, TransportEvents } from "./transport.js";

/** What is used of a WebSocket. */
export interface SocketLike {
  binaryType: string;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number): void;
  readonly readyState: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
}

const OPEN = 1;

/** Connects with the WebSocket of the platform, or with what `make` gives. */
export function webSocketTransport(make: (url: string, subprotocol: string) => SocketLike = platformSocket): Transport {
  return { connect: (url, hears) => connect(make(url, SUBPROTOCOL), hears) };
}

function platformSocket(url: string, subprotocol: string): SocketLike {
  if (typeof WebSocket === "undefined") {
    throw new Error("there is no WebSocket here; pass `transport: nodeTransport()` from @syncline/client/node");
  }
  return new WebSocket(url, subprotocol) as unknown as SocketLike;
}

function connect(socket: SocketLike, hears: TransportEvents): Connection {
  let over = false;
  const end = (code: number | undefined) => {
    if (over) return;
    over = true;
    hears.closed(code);
  };
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    if (!over) hears.opened();
  };
  socket.onmessage = ({ data }: { readonly data: unknown }) => {
    if (over) return;
    if (data instanceof ArrayBuffer) hears.frame(new Uint8Array(data));
    else hears.text();
  };
  socket.onclose = ({ code }: { readonly code: number }) => end(code);
  // `close` follows.
  socket.onerror = () => {};
  return {
    send: (frame) => {
      if (!over && socket.readyState === OPEN) socket.send(frame as Uint8Array<ArrayBuffer>);
    },
    close: () => {
      over = true;
      socket.close(1000);
    },
  };
}
