/**
 * A recorded text as one Yjs update, made by Yjs itself: `node yjs-paper.mjs TRACE.json OUT`. A keystroke is a transaction, as it was
 * for who typed it. Writes OUT.update, and OUT.json: who typed, how far, and after which character a load types on.
 */
import { readFileSync, writeFileSync } from "node:fs";
import * as Y from "yjs";

const [trace, out] = process.argv.slice(2);
const { txns } = JSON.parse(readFileSync(trace, "utf8"));
const document = new Y.Doc();
document.clientID = 1;
const text = document.getText("text");
for (const { patches } of txns) {
  document.transact(() => {
    for (const [at, deleted, inserted] of patches) {
      if (deleted > 0) text.delete(at, deleted);
      if (inserted.length > 0) text.insert(at, inserted);
    }
  });
}
let last = text._start;
while (last?.right) last = last.right;
const end = { client: last.id.client, clock: last.id.clock + last.length - 1 };
writeFileSync(`${out}.update`, Y.encodeStateAsUpdate(document));
writeFileSync(`${out}.json`, JSON.stringify({ ...end, next: Y.getState(document.store, 1), length: text.length }));
