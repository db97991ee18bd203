/**
 * What the page keeps beside the documents: a token and the switch for as long as the tab lives, the visitor's name for good.
 * Where the browser allows no storage, it is kept until the page goes.
 */

/** The things kept, by where: in this tab, or in this browser. */
type Place = "tab" | "browser";

const memory = new Map<string, string>();

/** What was kept under `name`. */
export function recall(place: Place, name: string): string | undefined {
  try {
    return storage(place).getItem(key(name)) ?? memory.get(key(name));
  } catch {
    return memory.get(key(name));
  }
}

/** Keeps `value`; undefined forgets it. */
export function keep(place: Place, name: string, value: string | undefined): void {
  if (value === undefined) memory.delete(key(name));
  else memory.set(key(name), value);
  try {
    if (value === undefined) storage(place).removeItem(key(name));
    else storage(place).setItem(key(name), value);
  } catch {
    // It is in memory, which is the most that this browser allows.
  }
}

function storage(place: Place): globalThis.Storage {
  return place === "tab" ? sessionStorage : localStorage;
}

function key(name: string): string {
  return `syncline.${name}`;
}
