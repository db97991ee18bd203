// Changes of every kind as JavaScript makes them, one after another as a server may receive them. Writes javascript.json:
// node javascript.mjs > javascript.json (with @automerge/automerge 3.5.0).
import * as A from "@automerge/automerge";

const hex = (b) => Buffer.from(b).toString("hex");
const last = (doc) => A.getLastLocalChange(doc);
let alice = A.init({ actor: "aa".repeat(16) });
let log = [];
const step = (name, doc) => { log.push({ name, change: hex(last(doc)) }); return doc; };
alice = step("a map with everything", A.change(alice, "first", (d) => {
  d.title = "a title"; d.count = new A.Counter(3); d.float = 1.5; d.int = 7; d.uint = new A.Uint(5); d.big = 2 ** 40;
  d.yes = true; d.no = null; d.when = new Date(1700000000000); d.bytes = new Uint8Array([1, 2, 3]);
  d.list = [1, "two", { three: 3 }, [4]]; d.nested = { a: { b: { c: {} } } }; d.text = "hello world";
  d.raw = new A.ImmutableString("raw");
}));
alice = step("list edits", A.change(alice, (d) => { d.list.push(5, 6); d.list.splice(1, 1); d.list[0] = "one"; d.list.insertAt(1, new A.Counter(1)); d.list.deleteAt(2); }));
alice = step("text splice", A.change(alice, (d) => { A.splice(d, ["text"], 5, 0, ", dear 😀"); A.splice(d, ["text"], 0, 2); }));
alice = step("update text", A.change(alice, (d) => A.updateText(d, ["text"], "Hello, dear old world")));
alice = step("counter", A.change(alice, (d) => { d.count.increment(2); d.count.decrement(); d.list[1].increment(4); }));
alice = step("deletes", A.change(alice, (d) => { delete d.title; delete d.nested.a; }));
alice = step("mark", A.change(alice, (d) => { A.mark(d, ["text"], { start: 2, end: 7, expand: "both" }, "bold", true); }));
alice = step("unmark", A.change(alice, (d) => { A.unmark(d, ["text"], { start: 3, end: 5, expand: "none" }, "bold"); }));
alice = step("block", A.change(alice, (d) => { A.splitBlock(d, ["text"], 4, { type: "paragraph", parents: [], attrs: {} }); }));
alice = step("block update", A.change(alice, (d) => { A.updateBlock(d, ["text"], 4, { type: "heading", parents: ["x"], attrs: { level: 2 } }); }));
alice = step("join block", A.change(alice, (d) => { A.joinBlock(d, ["text"], 4); }));
alice = step("empty change", A.emptyChange(alice, "nothing"));
let bob = A.clone(alice, { actor: "bb".repeat(16) });
bob = step("bob concurrently", A.change(bob, (d) => { d.conflict = "bob"; d.list.push("bob"); A.splice(d, ["text"], 3, 1, "BOB"); d.count.increment(10); }));
alice = step("alice concurrently", A.change(alice, (d) => { d.conflict = new A.Counter(1); d.list.push("alice"); A.splice(d, ["text"], 3, 1, "ALICE"); }));
alice = A.merge(alice, bob);
alice = step("over a conflict", A.change(alice, (d) => { d.conflict = "both"; A.mark(d, ["text"], { start: 0, end: 9, expand: "after" }, "link", "https://example.org"); }));
bob = A.merge(bob, alice);
bob = step("update spans", A.change(bob, (d) => { A.updateSpans(d, ["text"], [{ type: "block", value: { type: "paragraph", parents: [], attrs: {} } }, { type: "text", value: "fresh ", marks: { bold: true } }, { type: "text", value: "text" }]); }));
alice = A.merge(alice, bob);
alice = step("a long paste", A.change(alice, (d) => { A.splice(d, ["text"], 2, 0, "lorem ipsum ".repeat(80)); }));
alice = step("select all and delete", A.change(alice, (d) => { A.updateText(d, ["text"], ""); }));
const from = A.from({ items: [{ done: false, text: "a" }, { done: true, text: "b" }] }, { actor: "cc".repeat(16) });
log.push({ name: "another document", change: hex(last(from)) });
let carol = A.change(from, (d) => { d.items.unshift({ done: false, text: "c" }); d.items[1].done = true; });
log.push({ name: "another document, second change", change: hex(last(carol)) });
console.log(JSON.stringify(log, null, 1));
