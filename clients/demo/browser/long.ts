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

/** What is typed in one go is one change, up to this many pieces of text. */
const PIECES_PER_CHANGE = 200;

/** At a position, take so many letters out and put these in. */
type Keystroke = readonly [position: number, deleted: number, inserted: string];

/** Writes the history into a document. */
export async function writeLong(board: Automerge.Doc<Board>): Promise<Automerge.Doc<Board>> {
  const pieces = joined(await readHistory());
  let written = board;
  for (let from = 0; from < pieces.length; from += PIECES_PER_CHANGE) {
    written = Automerge.change(written, (now) => {
      for (const [position, deleted, inserted] of pieces.slice(from, from + PIECES_PER_CHANGE)) {
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

/** Letters typed one behind another become one piece: as many operations, in fewer calls. */
function joined(keystrokes: readonly Keystroke[]): Keystroke[] {
  const pieces: Keystroke[] = [];
  for (const keystroke of keystrokes) {
    const [position, deleted, inserted] = keystroke;
    const last = pieces.at(-1);
    if (last !== undefined && deleted === 0 && position === last[0] + last[2].length) {
      pieces[pieces.length - 1] = [last[0], last[1], last[2] + inserted];
    } else pieces.push(keystroke);
  }
  return pieces;
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
