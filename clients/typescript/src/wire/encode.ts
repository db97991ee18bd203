/** Messages to frames: one encoding for each message ([M10]). */
import { fromHex } from "./decode.js";
import { LIMIT_NAMES, type ClientMessage, type Cursor, type Hash, type ServerMessage } from "./messages.js";
import { Writer } from "./msgpack.js";

/** A client's message as a frame. */
export function encodeClient(message: ClientMessage): Uint8Array {
  const w = new Writer();
  switch (message.type) {
    case "hello":
      w.array(5).number(1).number(message.version);
      orNil(w, message.token, (token) => w.text(token)).text(message.client);
      list(w, message.capabilities, (capability) => w.text(capability));
      break;
    case "auth":
      w.array(2).number(2).text(message.token);
      break;
    case "open":
      w.array(4).number(3).text(message.document);
      orNil(w, message.cursor, (at) => cursor(w, at));
      hashes(w, message.heads);
      break;
    case "edit":
      w.array(4).number(4).number(message.room).number(message.id);
      list(w, message.changes, (change) => w.bytes(change));
      break;
    case "presence":
      w.array(3).number(5).number(message.room);
      orNil(w, message.state, (state) => w.bytes(state));
      break;
    case "signal":
      w.array(3).number(6).number(message.room).bytes(message.payload);
      break;
    case "leave":
      w.array(2).number(7).number(message.room);
      break;
  }
  return w.finish();
}

/** A server's message as a frame; for tests and tools. */
export function encodeServer(message: ServerMessage): Uint8Array {
  const w = new Writer();
  switch (message.type) {
    case "welcome": {
      w.array(4).number(16).number(message.session).map(LIMIT_NAMES.length);
      for (const name of LIMIT_NAMES) w.text(name).number(message.limits[name]);
      list(w, message.capabilities, (capability) => w.text(capability));
      break;
    }
    case "opened":
      w.array(8).number(17).number(message.room).text(message.document).number(message.access === "read" ? 0 : 1);
      hashes(w, message.heads);
      cursor(w, message.cursor).number(message.base === "replica" ? 0 : 1).number(message.bytes);
      break;
    case "part":
      w.array(5).number(18).number(message.room).number(message.packing === "plain" ? 0 : 1).bytes(message.bytes);
      orNil(w, message.end, (end) => cursor(w, end));
      break;
    case "diff":
      w.array(4).number(19).number(message.room);
      cursor(w, message.cursor);
      list(w, message.runs, (run) => {
        w.array(2).number(run.session);
        list(w, run.changes, (change) => w.bytes(change));
      });
      break;
    case "ack":
      cursor(w.array(4).number(20).number(message.room).number(message.id), message.cursor);
      break;
    case "reject":
      w.array(5).number(21).number(message.room).number(message.id).text(message.code).text(message.text);
      break;
    case "presence":
      w.array(3).number(22).number(message.room);
      list(w, message.entries, ({ session, subject, name, state }) => {
        w.array(4).number(session).text(subject);
        orNil(w, name, (known) => w.text(known));
        orNil(w, state, (shown) => w.bytes(shown));
      });
      break;
    case "signal":
      w.array(4).number(23).number(message.room).number(message.session).bytes(message.payload);
      break;
    case "closed":
      w.array(5).number(24);
      orNil(w, message.room, (room) => w.number(room)).text(message.document).text(message.code).text(message.text);
      break;
    case "retry":
      w.array(2).number(25).number(message.after_ms);
      break;
    case "error":
      w.array(3).number(26).number(message.code).text(message.text);
      break;
  }
  return w.finish();
}

function list<T>(w: Writer, values: readonly T[], write: (value: T) => void): Writer {
  w.array(values.length);
  values.forEach(write);
  return w;
}

function orNil<T>(w: Writer, value: T | null, write: (value: T) => void): Writer {
  if (value === null) w.nil();
  else write(value);
  return w;
}

function cursor(w: Writer, [epoch, position]: Cursor): Writer {
  return w.array(2).number(epoch).number(position);
}

function hashes(w: Writer, heads: readonly Hash[]): Writer {
  return list(w, heads, (head) => w.bytes(fromHex(head)));
}
