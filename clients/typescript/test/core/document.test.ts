import * as A from "@automerge/automerge";
import { deflateSync } from "fflate";
import { describe, expect, it } from "vitest";
import { initialChange } from "../../src/core/initial.js";
import { editKey, editWrite, nothingKept, readKept, type Kept } from "../../src/core/kept.js";
import { ChangeError } from "../../src/status.js";
import type { StorageWrite } from "../../src/storage/storage.js";
import { Driver, noLimits, others, type Notes } from "./driver.js";

/** A driver in its room, with somebody else's text. */
function live(text = "hello"): { driver: Driver; doc: A.Doc<Notes>; all: Uint8Array[] } {
  const { doc, all } = others(text);
  const driver = new Driver();
  driver.open();
  driver.connect();
  driver.come(all, [1, all.length]);
  return { driver, doc, all };
}

const drafts = (driver: Driver) => driver.notices.flatMap((notice) => (notice.type === "draft" ? [notice.draft] : []));
const writes = (driver: Driver): StorageWrite[] => driver.effects.flatMap((effect) => (effect.type === "store" ? effect.writes : []));
const changes = (driver: Driver) => driver.notices.filter((notice) => notice.type === "changed");
const typed = (doc: A.Doc<Notes>, text: string) => A.change(doc, { time: 0 }, (notes) => A.splice(notes, ["text"], 0, 0, text));

/** What a next page finds, of all batches of a driver. */
function kept(driver: Driver, own = true): Kept {
  const entries = new Map<string, Uint8Array>();
  for (const write of writes(driver)) {
    if ("put" in write) entries.set(write.put, write.value);
    else entries.delete(write.remove);
  }
  return readKept("d", [...entries].sort(([a], [b]) => (a < b ? -1 : 1)), () => own);
}

describe("local edits", () => {
  it("are shown at once, stored before they are sent, and sent as one edit", () => {
    const { driver } = live();
    driver.storage = "waits";
    for (const char of "abc") driver.type(char);
    expect(driver.text).toBe("cbahello");
    expect(driver.core.state("d")).toMatchObject({ safety: "unstored", unsynced: 3 });
    const stores = () => driver.effects.filter((effect) => effect.type === "store");
    expect(stores()).toEqual([]);
    driver.pass(0);
    expect(stores()).toMatchObject([{ writes: [{}, {}, {}] }]);
    expect(driver.core.state("d")?.safety).toBe("unstored");
    driver.step({ type: "stored", document: "d", ticket: stores()[0]!.ticket });
    expect(driver.core.state("d")?.safety).toBe("local");
    driver.pass(49);
    expect(driver.edits()).toEqual([]);
    driver.pass(1);
    expect(driver.edits()).toMatchObject([{ changes: [{}, {}, {}] }]);
    expect(driver.core.state("d")?.safety).toBe("sent");
    driver.say({ type: "ack", room: 1, id: driver.edits()[0]!.id, cursor: [1, 4] });
    expect(driver.core.state("d")).toMatchObject({ safety: "durable", unsynced: 0 });
  });

  it("tell how long the last answer took, in whichever document", () => {
    const { driver } = live();
    driver.step({ type: "open", document: "e", kept: nothingKept, initial: initialChange({ text: "" }) });
    driver.say({ type: "opened", room: 2, document: "e", access: "write", heads: [], cursor: [1, 0], base: "nothing", bytes: 0 });
    driver.say({ type: "part", room: 2, packing: "plain", bytes: new Uint8Array(), end: [1, 0] });
    driver.pass(60);
    driver.say({ type: "ack", room: 2, id: driver.edits()[0]!.id, cursor: [1, 1] });
    expect(driver.core.roundTripMs).toBe(10);
    driver.type("a");
    driver.pass(80);
    driver.say({ type: "ack", room: 1, id: driver.edits()[1]!.id, cursor: [1, 2] });
    expect(driver.core.roundTripMs).toBe(30);
  });

  it("are sent all the same when the storage fails, and the app is told", () => {
    const { driver } = live();
    driver.storage = "waits";
    driver.type("a");
    driver.pass(50);
    const [store] = driver.effects.filter((effect) => effect.type === "store");
    driver.step({ type: "store-failed", document: "d", ticket: store!.ticket, error: new Error("full") });
    expect(driver.errors()).toEqual(["storage"]);
    expect(driver.edits()).toHaveLength(1);
  });

  it("e10_o13_an_acknowledged_change_is_not_merged_again_when_its_diff_comes", () => {
    const { driver } = live();
    driver.type("a");
    driver.pass(50);
    const [edit] = driver.edits();
    driver.say({ type: "ack", room: 1, id: edit!.id, cursor: [1, 2] });
    const before = changes(driver).length;
    driver.diff(edit!.changes, [1, 2], 7);
    driver.pass(100);
    expect(changes(driver)).toHaveLength(before);
    driver.pass(1_000);
    expect(writes(driver).some((write) => "remove" in write && write.remove.includes("/q/"))).toBe(true);
  });

  it("are refused before the document is there, and when too large", () => {
    const driver = new Driver();
    driver.open();
    expect(() => driver.type("a")).toThrow(ChangeError);
    const ready = new Driver();
    ready.open();
    ready.connect({ frame_bytes_max: 2_000, ops_per_change_max: 4_000 });
    ready.come(others("hello").all, [1, 1]);
    const fault = (work: () => void) => {
      try {
        work();
      } catch (error) {
        return (error as ChangeError).kind;
      }
      return undefined;
    };
    const manyBytes = Array.from({ length: 3_000 }, (_, at) => String.fromCharCode(33 + ((at * at) % 90))).join("");
    expect(fault(() => ready.type(manyBytes))).toBe("too_large");
    expect(fault(() => ready.type("x".repeat(4_001)))).toBe("too_large");
    expect(ready.text).toBe("hello");
    ready.type("still ");
    expect(ready.text).toBe("still hello");
  });

  it("e16_a_temporary_reject_is_sent_again", () => {
    const { driver } = live();
    driver.type("a");
    driver.pass(50);
    driver.say({ type: "reject", room: 1, id: driver.edits()[0]!.id, code: "unavailable", text: "" });
    expect(driver.text).toBe("ahello");
    driver.pass(150);
    expect(driver.edits()).toHaveLength(2);
    expect(drafts(driver)).toEqual([]);
  });

  it("e21_what_is_above_a_limit_together_is_sent_one_by_one_before_any_of_it_becomes_a_draft", () => {
    const { driver } = live();
    for (const char of "abc") driver.type(char);
    driver.pass(50);
    driver.say({ type: "reject", room: 1, id: driver.edits()[0]!.id, code: "limit", text: "too much" });
    expect([driver.text, drafts(driver)]).toEqual(["cbahello", []]);
    expect(driver.sent.slice(-2).map(({ type }) => type)).toEqual(["leave", "open"]);
    driver.sent = [];
    driver.come([], [1, 1], { base: "replica", heads: A.getHeads(others("hello").doc) });
    expect(driver.edits().map(({ changes }) => changes.length)).toEqual([1, 1, 1]);
    driver.say({ type: "ack", room: 1, id: driver.edits()[0]!.id, cursor: [1, 2] });
    driver.say({ type: "reject", room: 1, id: driver.edits()[1]!.id, code: "limit", text: "too much" });
    driver.say({ type: "reject", room: 1, id: driver.edits()[2]!.id, code: "after_reject", text: "" });
    expect(driver.text).toBe("ahello");
    expect(drafts(driver)).toMatchObject([{ code: "limit", changes: 2 }]);
  });

  it.each(["limit", "foreign_actor", "after_reject", "x_unknown"])("e17_a_refused_edit_becomes_a_draft_with_what_stands_on_it: %s", (code) => {
    const { driver } = live();
    driver.type("a");
    driver.pass(50);
    driver.type("b");
    driver.say({ type: "reject", room: 1, id: driver.edits()[0]!.id, code, text: "no" });
    expect(driver.text).toBe("hello");
    expect(drafts(driver)).toMatchObject([{ code, reason: "no", changes: 2 }]);
    driver.type("c");
    driver.pass(50);
    const [first] = driver.edits().at(-1)!.changes.map((change) => A.decodeChange(change));
    const [refused] = driver.edits()[0]!.changes.map((change) => A.decodeChange(change));
    expect(first!.actor).not.toBe(refused!.actor);
    expect(first!.seq).toBe(1);
    const [draft] = drafts(driver);
    expect(driver.core.makeDraftAnew(driver.now, "d", draft!.id).made).toBe(true);
    expect([...driver.text].sort().join("")).toBe([..."abchello"].sort().join(""));
  });

  it("h13_a_token_that_grants_reading_only_makes_the_document_read_only_until_another_one_grants_more", () => {
    const { all } = others("hello");
    const driver = new Driver({ credentials: { kind: "asked" } });
    driver.open();
    driver.step({ type: "start" });
    driver.step({ type: "token", token: { text: "one", expiresAt: driver.now + 100_000 } });
    driver.step({ type: "connected" });
    driver.say({ type: "welcome", session: 7, limits: { ...noLimits, idle_timeout_ms: 1_000_000 }, capabilities: [] });
    driver.come(all, [1, 1]);
    driver.type("a");
    driver.pass(50);
    driver.say({ type: "reject", room: 1, id: driver.edits()[0]!.id, code: "forbidden", text: "" });
    expect(driver.core.state("d")?.status).toEqual({ state: "live", access: "read" });
    expect(() => driver.type("b")).toThrow(expect.objectContaining({ kind: "read_only" }));
    driver.pass(80_000);
    driver.sent = [];
    driver.step({ type: "token", token: { text: "two", expiresAt: undefined } });
    expect(driver.sent.map(({ type }) => type)).toEqual(["auth", "leave", "open"]);
    driver.come([], [1, 1], { base: "replica", heads: A.getHeads(driver.core.doc("d")) });
    expect(driver.core.state("d")?.status).toEqual({ state: "live", access: "write" });
    driver.type("c");
    expect(driver.text).toBe("chello");
  });

  it("e14_an_actor_conflict_is_made_anew_under_another_actor", () => {
    const { driver } = live();
    driver.type("a");
    driver.pass(50);
    driver.say({ type: "reject", room: 1, id: driver.edits()[0]!.id, code: "actor_conflict", text: "" });
    expect(driver.text).toBe("ahello");
    driver.pass(50);
    const actors = driver.edits().map((edit) => A.decodeChange(edit.changes[0]!).actor);
    expect(new Set(actors).size).toBe(2);
    expect(drafts(driver)).toEqual([]);
  });
});

describe("what comes", () => {
  it("is applied once per pause, as one event, and the pause grows with the time that it takes", () => {
    const { driver, doc } = live();
    let theirs = doc;
    let position = 1;
    const next = () => {
      theirs = typed(theirs, "x");
      position += 1;
      driver.diff([A.getLastLocalChange(theirs)!], [1, position]);
    };
    driver.pass(100);
    next();
    const before = changes(driver).length;
    driver.core.took(driver.now, 60);
    for (let edit = 0; edit < 10; edit += 1) {
      driver.pass(20);
      next();
    }
    expect(changes(driver)).toHaveLength(before);
    driver.pass(60);
    expect(changes(driver)).toHaveLength(before + 1);
    expect(driver.text).toBe("xxxxxxxxxxxhello");
  });

  it("e8_a_gap_opens_the_document_anew", () => {
    const { driver, doc } = live();
    driver.sent = [];
    driver.diff([A.getLastLocalChange(typed(doc, "x"))!], [1, 5]);
    expect(driver.sent.map(({ type }) => type)).toEqual(["leave", "open"]);
    expect(driver.sent[1]).toMatchObject({ cursor: [1, 1] });
  });

  it("o12_is_inflated_under_a_cap", () => {
    const { all } = others("hello");
    const driver = new Driver({ limits: { loadingBytesMax: 10_000 } });
    driver.open();
    driver.connect();
    const opened = { type: "opened", room: 1, document: "d", access: "write", heads: [], cursor: [1, 1], base: "nothing", bytes: 9 } as const;
    driver.say(opened);
    driver.say({ type: "part", room: 1, packing: "deflate", bytes: deflateSync(all[0]!), end: [1, 1] });
    expect(driver.text).toBe("hello");
    const other = new Driver({ limits: { loadingBytesMax: 10_000 } });
    other.open();
    other.connect();
    other.say(opened);
    other.say({ type: "part", room: 1, packing: "deflate", bytes: deflateSync(new Uint8Array(1_000_000)), end: [1, 1] });
    expect(other.core.state("d")?.status).toMatchObject({ state: "refused", code: "limit" });
  });

  it("a server that dies in the middle of a snapshot leaves nothing half done", () => {
    const { all } = others("hello");
    const driver = new Driver();
    driver.open();
    driver.connect();
    driver.say({ type: "opened", room: 1, document: "d", access: "write", heads: [], cursor: [1, 1], base: "nothing", bytes: all[0]!.length });
    driver.say({ type: "part", room: 1, packing: "plain", bytes: all[0]!.subarray(0, 20), end: null });
    driver.step({ type: "disconnected", code: 1006 });
    expect(driver.core.state("d")?.ready).toBe(false);
    driver.pass(200);
    driver.step({ type: "connected" });
    driver.say({ type: "welcome", session: 8, limits: noLimits, capabilities: [] });
    driver.come(all, [1, 1]);
    expect(driver.text).toBe("hello");
    expect(driver.errors()).toEqual([]);
  });

  it("o14_a_document_with_other_heads_than_said_is_fetched_whole", () => {
    const { all } = others("hello");
    const driver = new Driver();
    driver.open();
    driver.connect();
    driver.sent = [];
    driver.come(all, [1, 1], { heads: ["ab".repeat(32)] });
    expect(driver.errors()).toEqual(["document"]);
    expect(driver.sent.at(-1)).toMatchObject({ type: "open", cursor: null, heads: [] });
    driver.come(all, [1, 1]);
    expect(driver.core.state("d")?.status.state).toBe("live");
  });

  it("a panic of Automerge costs the document, not the edits", () => {
    const { driver, doc } = live();
    driver.type("mine ");
    driver.pass(50);
    const honest = typed(doc, "x");
    const gap = A.encodeChange({ ...A.decodeChange(A.getLastLocalChange(honest)!), hash: undefined, seq: 9 } as never);
    driver.diff([gap], [1, 2]);
    driver.pass(100);
    expect(driver.errors()).toContain("document");
    expect(driver.sent.at(-1)).toMatchObject({ type: "open", cursor: null });
    driver.come(A.getAllChanges(honest), [1, 2]);
    expect(driver.text).toBe("mine xhello");
    driver.pass(100);
    driver.type("more ");
    driver.pass(50);
    expect(driver.edits().length).toBeGreaterThan(1);
  });

  it("a panic of Automerge in a local change leaves nothing of that change, and costs the document, not the edits", () => {
    const { driver, doc, all } = live();
    driver.type("mine ");
    driver.pass(50);
    const panics = (doc: A.Doc<unknown>): A.Doc<unknown> => {
      typed(doc as A.Doc<Notes>, "half ");
      throw new WebAssembly.RuntimeError("unreachable");
    };
    expect(() => driver.core.change(driver.now, "d", panics)).toThrow(ChangeError);
    driver.step({ type: "wake" });
    expect([driver.text, driver.errors()]).toEqual(["mine hello", ["document"]]);
    expect(driver.sent.at(-1)).toMatchObject({ type: "open", cursor: null });
    const theirs = typed(doc, "x");
    driver.come([...all, A.getLastLocalChange(theirs)!], [1, 2]);
    expect([...driver.text].sort().join("")).toBe([..."mine xhello"].sort().join(""));
    driver.type("more ");
    driver.pass(50);
    const sent = driver.edits().flatMap((edit) => edit.changes.map((change) => A.decodeChange(change).hash));
    expect(new Set(sent).size).toBe(2);
    expect(driver.core.state("d")?.status.state).toBe("live");
  });

  it("a document that Automerge cannot write any more is fetched anew, and no error leaves the core", () => {
    const { driver, all } = live();
    A.free(driver.core.doc("d"));
    driver.pass(1_000);
    expect(driver.errors()).toEqual(["document"]);
    expect(driver.sent.at(-1)).toMatchObject({ type: "open", cursor: null, heads: [] });
    driver.come(all, [1, 1]);
    driver.type("mine ");
    expect(driver.text).toBe("mine hello");
  });

  it("r2_after_a_reset_own_edits_are_made_anew_once_under_a_new_actor", () => {
    const { driver, doc, all } = live();
    const culprit = typed(doc, "BAD ");
    driver.diff([A.getLastLocalChange(culprit)!], [1, 2]);
    driver.pass(100);
    driver.type("mine ", 4);
    driver.pass(50);
    driver.say({ type: "closed", room: 1, document: "d", code: "reset", text: "" });
    expect(driver.sent.at(-1)).toMatchObject({ type: "open", cursor: null, heads: [] });
    const stored = driver.effects.length;
    driver.come(all, [2, 1]);
    expect(driver.text).toBe("mine hello");
    driver.pass(50);
    const batches = driver.effects.slice(stored).filter((effect) => effect.type === "store");
    const moved = batches.find((batch) => batch.writes.some((write) => "remove" in write && write.remove.includes("/q/")));
    expect(moved?.writes.some((write) => "put" in write && write.put.includes("/q/"))).toBe(true);
    const [before, after] = [driver.edits().at(0)!, driver.edits().at(-1)!].map((edit) => A.decodeChange(edit.changes[0]!));
    expect(after!.actor).not.toBe(before!.actor);
    expect(drafts(driver)).toEqual([]);
  });

  it("r2_what_was_never_acknowledged_and_stands_on_sound_history_goes_on_as_it_is", () => {
    const { driver, all } = live();
    driver.type("mine ");
    driver.pass(50);
    driver.say({ type: "closed", room: 1, document: "d", code: "reset", text: "" });
    driver.come(all, [2, 1]);
    expect(driver.text).toBe("mine hello");
    const [before, after] = driver.edits();
    expect(after!.changes).toEqual(before!.changes);
    driver.type("more ");
    driver.pass(50);
    const actors = driver.edits().map((edit) => A.decodeChange(edit.changes[0]!).actor);
    expect(new Set(actors).size).toBe(2);
  });

  it("o17_another_life_of_the_log_is_sent_all_that_it_lacks", () => {
    const { driver, doc, all } = live();
    const theirs = typed(doc, "kept ");
    driver.diff([A.getLastLocalChange(theirs)!], [1, 2]);
    driver.pass(100);
    driver.step({ type: "disconnected", code: 1012 });
    driver.pass(200);
    driver.step({ type: "connected" });
    driver.say({ type: "welcome", session: 8, limits: noLimits, capabilities: [] });
    driver.sent = [];
    driver.come(all, [5, 1]);
    expect(driver.text).toBe("kept hello");
    expect(driver.edits()).toMatchObject([{ changes: [A.getLastLocalChange(theirs)] }]);
  });
});

describe("what is stored", () => {
  it("c7_o4_is_enough_to_go_on_with_and_to_ask_for_what_was_missed_only", () => {
    const { driver, doc } = live();
    const theirs = typed(doc, "x");
    driver.diff([A.getLastLocalChange(theirs)!], [1, 2]);
    driver.pass(1_000);
    driver.type("unsent ");
    driver.step({ type: "stop" });
    driver.pass(1_000);
    const next = new Driver();
    next.open(kept(driver));
    expect(next.text).toBe("unsent xhello");
    expect(next.core.state("d")).toMatchObject({ ready: true, unsynced: 1, safety: "local" });
    next.connect();
    expect(next.sent.at(-1)).toMatchObject({ type: "open", cursor: [1, 2], heads: A.getHeads(theirs) });
  });

  it("that cannot be read is reported and left, and the server is asked", () => {
    const { driver } = live();
    driver.pass(1_000);
    driver.type("unsent ");
    driver.step({ type: "stop" });
    driver.pass(1_000);
    const whole = kept(driver);
    const next = new Driver();
    next.open({ ...whole, replica: whole.replica!.map((byte, at) => (at > 20 ? byte ^ 0xff : byte)), damaged: ["d/d/x/1"] });
    expect(next.errors()).toEqual(["storage", "storage"]);
    expect(next.core.state("d")).toMatchObject({ unsynced: 1 });
    next.connect();
    expect(next.sent.at(-1)).toMatchObject({ type: "open", cursor: null });
    next.come(others("hello").all, [1, 1]);
    expect(next.text).toBe("unsent hello");
    expect(next.core.state("d")).toMatchObject({ unsynced: 1 });
  });

  it("o28_is_never_a_bundle", () => {
    const { driver, doc } = live();
    driver.pass(1_000);
    const heads = A.getHeads(doc);
    const theirs = typed(typed(doc, "x"), "y");
    const [first, second] = A.getChangesMetaSince(theirs, heads).map(({ hash }) => hash);
    const single = typed(theirs, "z");
    const bundle = A.saveBundle(theirs, [first!, second!]);
    expect(bundle[8]).toBe(3);
    const bytes = new Uint8Array([...A.getLastLocalChange(doc)!, ...bundle, ...A.getLastLocalChange(single)!]);
    driver.say({ type: "part", room: 1, packing: "plain", bytes, end: [1, 4] });
    expect(driver.text).toBe("zyxhello");
    driver.pass(1_000);
    const found = kept(driver);
    expect(found.stored?.cursor).toEqual([1, 4]);
    expect(found.replica?.[8]).toBe(0);
    expect(found.stored?.keys).toHaveLength(1);
  });

  it("is compacted now and then", () => {
    const { driver, doc } = live();
    let theirs = doc;
    for (let position = 2; position < 300; position += 1) {
      theirs = typed(theirs, "x");
      driver.diff([A.getLastLocalChange(theirs)!], [1, position]);
      driver.pass(600);
    }
    const found = kept(driver);
    expect(found.stored?.keys.length).toBeLessThan(70);
    const next = new Driver();
    next.open(found);
    expect(next.core.doc("d")).toEqual(theirs);
  });

  it("is a snapshot where too much has come while a batch was stuck", () => {
    const { doc, all } = others("hello");
    const driver = new Driver({ limits: { stuckBytesMax: 1_000 } });
    driver.open();
    driver.connect();
    driver.come(all, [1, 1]);
    driver.storage = "waits";
    driver.pass(1_000);
    let theirs = doc;
    for (let position = 2; position < 30; position += 1) {
      theirs = typed(theirs, "x");
      driver.diff([A.getLastLocalChange(theirs)!], [1, position]);
      driver.pass(100);
    }
    const [stuck, ...more] = driver.effects.filter((effect) => effect.type === "store");
    expect(more).toEqual([]);
    driver.storage = "works";
    driver.step({ type: "stored", document: "d", ticket: stuck!.ticket });
    driver.pass(1_000);
    const found = kept(driver);
    expect(found.stored).toMatchObject({ cursor: [1, 29], generation: 2 });
    expect(found.stored?.keys).toHaveLength(1);
    const next = new Driver();
    next.open(found);
    expect(next.core.doc("d")).toEqual(theirs);
  });

  it("of another user is held back", () => {
    const driver = new Driver({ credentials: { kind: "asked" } });
    const mine = A.getLastLocalChange(typed(others("hello").doc, "eve's "))!;
    const edit = { key: editKey("d", "page", 1), user: "eve", remade: false, change: mine };
    expect(editWrite(edit)).toMatchObject({ put: edit.key });
    driver.step({ type: "user", user: "eve" });
    driver.open({ ...nothingKept, replica: others("hello").all[0], stored: { cursor: [1, 1], generation: 1, keys: [] }, own: [edit] });
    expect(driver.text).toBe("eve's hello");
    driver.step({ type: "user", user: "ada" });
    expect(driver.errors()).toEqual(["held"]);
    expect(driver.text).toBe("hello");
    expect(writes(driver).some((write) => "remove" in write)).toBe(false);
  });
});

describe("when another user is at the page", () => {
  const queue = (driver: Driver) => kept(driver).own.map(({ user }) => user);

  it("what the former one has just made is stored before it is put aside", () => {
    const driver = new Driver({ credentials: { kind: "asked" } });
    driver.step({ type: "user", user: "eve" });
    driver.open({ ...nothingKept, replica: others("hello").all[0], stored: { cursor: [1, 1], generation: 1, keys: [] } });
    driver.type("eve's ");
    driver.step({ type: "user", user: "ada" });
    expect([driver.text, driver.core.state("d")?.unsynced]).toEqual(["hello", 0]);
    expect(driver.errors()).toEqual(["held"]);
    expect(queue(driver)).toEqual(["eve"]);
  });

  it("what was made before anybody was known is the first one's, in the storage too", () => {
    const driver = new Driver({ credentials: { kind: "asked" } });
    driver.open(undefined, { text: "" });
    driver.step({ type: "stop" });
    driver.type("early ");
    driver.pass(100);
    expect(queue(driver)).toEqual([null, null]);
    driver.type("later ");
    driver.step({ type: "user", user: "eve" });
    expect(queue(driver)).toEqual(["eve", "eve", "eve"]);
    driver.step({ type: "user", user: "ada" });
    expect([driver.errors(), driver.text]).toEqual([["held"], ""]);
    // The document begins anew.
    expect(queue(driver)).toEqual(["eve", "eve", "eve", "ada"]);
  });
});

describe("how a document begins", () => {
  it("is the same bytes from everybody, whatever the order of keys, and other bytes for another beginning", () => {
    const one = initialChange({ text: "", list: [{ a: 1, b: 2 }] });
    expect(initialChange({ list: [{ b: 2, a: 1 }], text: "" })).toEqual(one);
    const other = initialChange({ text: "x", list: [] });
    expect(A.decodeChange(other).actor).not.toBe(A.decodeChange(one).actor);
  });

  it("is sent where the document is empty, and not where it is not", () => {
    const empty = new Driver();
    empty.open(undefined, { text: "" });
    empty.connect();
    empty.come([], [1, 0]);
    empty.pass(50);
    expect(empty.edits()).toMatchObject([{ changes: [initialChange({ text: "" })] }]);
    const written = new Driver();
    written.open(undefined, { text: "" });
    written.connect();
    written.come([initialChange({ text: "" })], [1, 1]);
    written.pass(50);
    expect(written.edits()).toEqual([]);
    expect(written.text).toBe("");
  });

  it("may be said by a later handle of a document that is open", () => {
    const driver = new Driver();
    driver.open();
    driver.connect();
    driver.come([], [1, 0]);
    driver.step({ type: "open", document: "d", kept: nothingKept, initial: initialChange({ text: "" }) });
    driver.pass(50);
    expect(driver.text).toBe("");
    expect(driver.edits()).toMatchObject([{ changes: [initialChange({ text: "" })] }]);
    const apart = new Driver();
    apart.open();
    apart.step({ type: "open", document: "d", kept: nothingKept, initial: initialChange({ text: "" }) });
    expect(apart.core.state("d")?.ready).toBe(true);
  });

  it("is not there any more when the server refuses it", () => {
    const driver = new Driver();
    driver.open(undefined, { text: "" });
    driver.connect();
    driver.come([], [1, 0]);
    driver.pass(50);
    driver.say({ type: "reject", room: 1, id: driver.edits()[0]!.id, code: "limit", text: "" });
    expect(driver.core.state("d")?.ready).toBe(false);
    driver.diff([initialChange({ text: "" })], [1, 1]);
    driver.pass(100);
    expect(driver.core.state("d")?.ready).toBe(true);
    expect(driver.text).toBe("");
  });

  it("is there without a network, and is the server's later", () => {
    const driver = new Driver();
    driver.open(undefined, { text: "" });
    expect(driver.core.state("d")?.ready).toBe(true);
    driver.type("offline");
    driver.connect();
    driver.come([initialChange({ text: "" })], [1, 1]);
    driver.pass(50);
    expect(driver.text).toBe("offline");
    expect(driver.edits().flatMap((edit) => edit.changes)).toHaveLength(1);
  });
});
