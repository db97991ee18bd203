/** Edits in a Yjs document: one key of one map each. */

/** How to write and read them; calls `seen` with each that somebody else wrote. */
export function editsOf(document, seen) {
  const edits = document.getMap("edits");
  edits.observe(({ keysChanged, transaction }) => {
    if (!transaction.local) keysChanged.forEach((key) => seen(key));
  });
  return { write: (key) => void edits.set(key, 1), keys: () => [...edits.keys()] };
}
