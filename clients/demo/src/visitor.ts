/**
 * What visitors show of themselves: a name, a colour, where they are. States of others come from anybody, so they are parsed;
 * names of the server come from a checked token and win over what a state claims.
 */
import type { Other } from "@syncline/client";

/** How many colours there are: `--person-0` and on in the style sheet. */
export const COLORS = 8;

/** A name is shown up to this length. */
const NAME_MAX = 32;

/** Where somebody is in the text: Automerge cursors, which stay at their letters. */
export interface Caret {
  readonly anchor: string;
  readonly head: string;
}

/** What a visitor shows. */
export interface Visitor {
  readonly name: string;
  readonly color: number;
  readonly caret?: Caret;
  /** The card that is being written. */
  readonly card?: string;
}

/** Somebody else, as shown. */
export interface Person extends Visitor {
  readonly session: number;
  /** Whether the server vouches for the name. */
  readonly isVouched: boolean;
}

/** Reads what somebody else shows. */
export function readPerson(other: Other): Person {
  const state = isRecord(other.state) ? other.state : {};
  const caret = isRecord(state["caret"]) ? state["caret"] : {};
  const name = other.name ?? (typeof state["name"] === "string" ? state["name"] : other.subject);
  const color = Number.isInteger(state["color"]) ? Math.abs(Number(state["color"])) % COLORS : other.session % COLORS;
  return {
    session: other.session,
    isVouched: other.name !== undefined,
    name: name.trim().slice(0, NAME_MAX) || "Somebody",
    color,
    ...(typeof caret["anchor"] === "string" && typeof caret["head"] === "string"
      ? { caret: { anchor: caret["anchor"], head: caret["head"] } }
      : {}),
    ...(typeof state["card"] === "string" ? { card: state["card"] } : {}),
  };
}

/** A colour that nobody has yet, `wished` if possible. */
export function freeColor(wished: number, people: readonly Person[]): number {
  const taken = new Set(people.map((person) => person.color));
  for (let step = 0; step < COLORS; step += 1) {
    const color = (wished + step) % COLORS;
    if (!taken.has(color)) return color;
  }
  return wished;
}

const FIRST = ["Amber", "Brisk", "Calm", "Daring", "Early", "Fond", "Gentle", "Keen", "Lucid", "Merry", "Quiet", "Swift"];
const SECOND = ["Badger", "Crane", "Dormouse", "Falcon", "Gecko", "Heron", "Lynx", "Marten", "Otter", "Robin", "Tern", "Wren"];

/** A name for somebody who has not said one; `random` gives numbers from 0 up to 1. */
export function inventName(random: () => number): string {
  const pick = (names: readonly string[]): string => names[Math.floor(random() * names.length)] ?? "";
  return `${pick(FIRST)} ${pick(SECOND)}`;
}

/** Two letters for a small circle. */
export function initials(name: string): string {
  const words = name.split(/\s+/).filter((word) => word !== "");
  const letters = words.length > 1 ? [words[0], words[words.length - 1]].map((word) => [...(word ?? "")][0]) : [...name].slice(0, 2);
  return letters.join("").toUpperCase();
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
