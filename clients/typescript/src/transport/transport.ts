/** How frames travel. The contract of all transports; nothing here knows what is in a frame. */

/** Makes connections. */
export interface Transport {
  /** Begins to connect. `hears` is told what happens, never before this has returned. */
  connect(url: string, hears: TransportEvents): Connection;
}

/** What a connection tells. After `closed` nothing more comes. */
export interface TransportEvents {
  opened(): void;
  frame(bytes: Uint8Array): void;
  /** A text message came; the protocol has none. */
  text(): void;
  /** The connection is gone or was never made; `code` is the close code, undefined without one. */
  closed(code: number | undefined): void;
}

/** One connection. */
export interface Connection {
  /** Frames sent before `opened`, or after `closed`, are dropped. */
  send(frame: Uint8Array): void;
  /** Closes it; nothing more is told. */
  close(): void;
}
