/** Whose the changes in the queue are. Of several users of one browser each sends only their own. */
import type { Document } from "./document.js";
import { putAside, storeUnsaved, writeOf } from "./edits.js";
import { oldestOf, type Pending } from "./pending.js";
import type { Site } from "./site.js";

/** `user` is at the page from now on: what was made before anybody was known is theirs; what another user has left is not sent. */
export function claim(document: Document, site: Site, user: string): void {
  // What is held stays in the storage only: so it has to be there.
  storeUnsaved(document, site);
  const queued = [...document.replica.pending.values(), ...document.unplaced].filter(({ origin }) => origin === "own");
  const nobodys = queued.filter((pending) => pending.user === null);
  for (const pending of nobodys) pending.user = user;
  if (nobodys.length > 0) document.store(site, { of: "rest" }, nobodys.map(writeOf));
  const foreign = queued.filter((pending) => pending.user !== user);
  if (foreign.length > 0) hold(document, site, foreign);
}

function hold(document: Document, site: Site, foreign: readonly Pending[]): void {
  const count = foreign.length;
  site.error("held", document.id, `${count} changes of another user are kept and not sent; adoptQueues() would send them`);
  site.out.push({ type: "notify", notice: { type: "held", document: document.id, serial: oldestOf(foreign) } });
  const held = new Set(foreign);
  document.unplaced = document.unplaced.filter((pending) => !held.has(pending));
  try {
    putAside(document, site, "held", "", (pending) => held.has(pending), "hold");
  } catch (error) {
    document.faulted(site, error);
  }
}
