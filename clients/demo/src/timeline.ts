/**
 * The changes of a document, one behind another. The document after some of them is given by the last change of each actor among
 * them, whose ancestors together are all of them; so one view needs no other.
 */
import * as Automerge from "@automerge/automerge";
import type { Board } from "./model";

/** The changes of a document in an order in which each comes after those that it builds on. */
export interface Timeline {
  readonly length: number;
  /** The heads after the first `count` changes. */
  heads(count: number): Automerge.Heads;
  /** When the `count`th was made, in milliseconds; undefined if it does not say. */
  time(count: number): number | undefined;
}

/** Reads the changes of a document; of a long one this takes a moment. */
export function readTimeline(board: Automerge.Doc<Board>): Timeline {
  const changes = Automerge.getChangesMetaSince(board, []);
  return {
    length: changes.length,
    heads(count) {
      const last = new Map(changes.slice(0, count).map((change) => [change.actor, change.hash]));
      return [...last.values()];
    },
    time(count) {
      const time = changes[count - 1]?.time ?? 0;
      return time > 0 ? time * 1000 : undefined;
    },
  };
}
