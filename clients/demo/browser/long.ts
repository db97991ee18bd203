/**
 * A long document for the tests: a real editing history of 259,778 keystrokes where the machine has it (`SYNCLINE_TRACES`, or
 * `shared/traces` beside the repository), and one made of as many where it has not.
 */
import * as Automerge from "@automerge/automerge";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { EMPTY, type Board } from "../src/model";

const NAME = "automerge-paper";

/** As many as the real history has. */
const KEYSTROKES = 259_778;

/** Changes hold this many keystrokes, about what somebody types in the time that a client gathers. */
const KEYSTROKES_PER_CHANGE = 100;

/** At a position, take so many letters out and put these in. */
type Keystroke = readonly [position: number, deleted: number, inserted: string];

/** Writes the history into a document. */
export async function writeLong(board: Automerge.Doc<Board>): Promise<Automerge.Doc<Board>> {
  const keystrokes = await readHistory();
  let written = board;
  for (let from = 0; from < keystrokes.length; from += KEYSTROKES_PER_CHANGE) {
    written = Automerge.change(written, (now) => {
      for (const [position, deleted, inserted] of keystrokes.slice(from, from + KEYSTROKES_PER_CHANGE)) {
        Automerge.splice(now, ["text"], position, deleted, inserted);
      }
    });
  }
  return written;
}

/** An empty document to write into. */
export function emptyBoard(): Automerge.Doc<Board> {
  return Automerge.from({ ...EMPTY } as Board & Record<string, unknown>) as Automerge.Doc<Board>;
}

async function readHistory(): Promise<Keystroke[]> {
  const folder = process.env["SYNCLINE_TRACES"] ?? join(import.meta.dirname, "../../../../shared/traces");
  try {
    const text = gunzipSync(await readFile(join(folder, `${NAME}.json.gz`))).toString();
    const { txns }: { txns: { patches: Keystroke[] }[] } = JSON.parse(text);
    return txns.flatMap(({ patches }) => patches);
  } catch (error) {
    console.log(`the history ${NAME} is not on this machine (${String(error)}): a generated one takes its place`);
    return Array.from({ length: KEYSTROKES }, (_none, index): Keystroke => {
      const letter = index % 60 === 59 ? "\n" : String.fromCharCode(97 + (index % 26));
      // Every fifth takes back what the one before wrote.
      const length = index - 2 * Math.floor(index / 5);
      return index % 5 === 4 ? [length - 1, 1, ""] : [length, 0, letter];
    });
  }
}
