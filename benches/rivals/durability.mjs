/**
 * What clients had seen of each other's edits, and what of it is there after a kill -9 and a restart on the same data: `make
 * compare-durability`. The same load, fault and check for every server, all of them beside each other, so that each meets the same
 * state of the machine. Prints Markdown; fails when Syncline has lost anything or a step could not be done.
 *
 * A SIGKILL takes what a process had not given to the system yet. It is no power cut, which takes more.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as automergeRepo from "./automerge-repo-sync-server.mjs";
import * as hocuspocus from "./hocuspocus.mjs";
import { ServerProcess, until, within } from "./server-process.mjs";
import * as syncline from "./syncline.mjs";
import * as yWebsocket from "./y-websocket-server.mjs";

const RIVALS = [syncline, hocuspocus, yWebsocket, automergeRepo];

const REPETITIONS = Number(process.env.REPETITIONS ?? 20);
const SEED = Number(process.env.SEED ?? 1);
if (!(REPETITIONS >= 1) || !Number.isInteger(SEED)) throw new RangeError("REPETITIONS is a number from 1 on, SEED a whole number");
const EDIT_EVERY_MS = 20;
/** The kill comes this long after the first edit: long enough for every server's timers, the longest being 10 s. */
const KILL_MS = { least: 500, most: 12_000 };
/** In the control nothing is written for this long before the kill, so that whatever a server means to store is stored. */
const CONTROL_QUIET_MS = 15_000;
/** What the fresh client has is final when nothing has come for this long. */
const SETTLED_MS = 2_000;
/** What was on the way to the watcher when the server was killed may still arrive. */
const ON_THE_WAY_MS = 300;
/** No step takes longer on a machine ten times slower. */
const PATIENCE_MS = 60_000;

/** All data of all servers; they are killed, and it is removed, however this ends. */
const root = mkdtempSync(join(tmpdir(), "syncline-rivals-"));
process.once("exit", () => rmSync(root, { recursive: true, force: true, maxRetries: 5 }));

/** One server, one kill. Seen edits by key, with when; which of them a fresh client does not find, and how old those were. */
async function repetition(rival, { killAfterMs, control = false }) {
  const directory = mkdtempSync(join(root, "server-"));
  const open = [];
  let server;
  const enter = async (...args) => {
    const client = await within(PATIENCE_MS, rival.open(server.port, ...args), `a client of ${rival.name} to connect`);
    open.push(client);
    return client;
  };
  const leave = async () => {
    for (const client of open.splice(0)) await within(PATIENCE_MS, Promise.resolve(client.close()).catch(() => {}), "a client's end");
  };
  try {
    server = await ServerProcess.start(rival.command, directory);
    const writer = await enter(undefined, () => {});
    const { seen, killedAt, before } = await underLoad(rival, writer, enter, server, { killAfterMs, control });
    await sleep(ON_THE_WAY_MS);
    await leave();
    await server.run();
    const found = await settled(await enter(writer.document, () => {}));
    const missing = [...seen].filter(([key]) => !found.has(key));
    const oldestMs = Math.max(0, ...missing.map(([, at]) => killedAt - at));
    return { seen: seen.size, lost: missing.length, lostBefore: before === undefined ? 0 : lacking(seen, before), oldestMs };
  } finally {
    await leave().catch(() => {});
    await server?.kill();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Load and fault: edits at an even pace, and SIGKILL the moment that the watcher is shown one after the time to kill. */
async function underLoad(rival, writer, enter, server, { killAfterMs, control }) {
  const seen = new Map();
  let killing;
  let armed = false;
  const note = (key) => {
    if (!seen.has(key)) seen.set(key, performance.now());
    if (armed) kill();
  };
  let killedAt;
  const kill = () => {
    killedAt ??= performance.now();
    killing ??= server.kill();
  };
  await enter(writer.document, note);
  let written = 0;
  const started = performance.now();
  // By the clock and not by the timer's ticks, so that a busy machine makes no lighter load.
  const pace = setInterval(() => {
    for (; killing === undefined && written * EDIT_EVERY_MS <= performance.now() - started; written += 1) writer.write(`e${written}`);
    armed ||= !control && performance.now() - started >= killAfterMs;
  }, EDIT_EVERY_MS / 2);
  let before;
  try {
    await sleep(killAfterMs);
    if (control) {
      clearInterval(pace);
      await until(() => seen.size === written, PATIENCE_MS, `all ${written} edits of ${rival.name} to be seen`);
      await sleep(CONTROL_QUIET_MS);
      before = await settled(await enter(writer.document, () => {}));
      kill();
    }
    await until(() => killing !== undefined, PATIENCE_MS, `an edit of ${rival.name} to be seen`);
  } finally {
    clearInterval(pace);
  }
  await killing;
  return { seen, killedAt, before };
}

/** What a client holds once nothing more comes. */
async function settled(client) {
  let [count, since] = [-1, performance.now()];
  await until(() => {
    const now = client.keys().length;
    if (now !== count) [count, since] = [now, performance.now()];
    return performance.now() - since >= SETTLED_MS;
  }, PATIENCE_MS, "a fresh client's document to settle");
  return new Set(client.keys());
}

function lacking(seen, found) {
  return [...seen.keys()].filter((key) => !found.has(key)).length;
}

/** Numbers from 0 to 1 by a seed: mulberry32. */
function randomBy(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The same for all rivals, at the same time. */
const all = (how) => Promise.all(RIVALS.map((rival) => repetition(rival, how)));

function row(rival, control, runs) {
  const sum = (of) => runs.reduce((total, run) => total + of(run), 0);
  const [seen, lost] = [sum((run) => run.seen), sum((run) => run.lost)];
  const share = seen === 0 ? "" : ` (${((100 * lost) / seen).toFixed(1)} %)`;
  const oldest = lost === 0 ? "" : `${(Math.max(...runs.map((run) => run.oldestMs)) / 1_000).toFixed(2)} s`;
  const cells = [rival.name, seen, `${lost}${share}`, `${runs.filter((run) => run.lost > 0).length} of ${runs.length}`, oldest];
  return [...cells, `${control.lostBefore} / ${control.lost} of ${control.seen}`];
}

const random = randomBy(SEED);
const line = (cells) => console.log(`| ${cells.join(" | ")} |`);
const tell = (what, runs) =>
  console.error(`${what}: ${RIVALS.map((rival, nth) => `${rival.name} ${runs[nth].lost} of ${runs[nth].seen}`).join(", ")}`);

const load = () => loadavg().map((one) => one.toFixed(1)).join(" ");
const before = load();
const controls = await all({ killAfterMs: 2_000, control: true });
tell("control", controls);
const repetitions = [];
while (repetitions.length < REPETITIONS) {
  const killAfterMs = Math.round(KILL_MS.least + random() * (KILL_MS.most - KILL_MS.least));
  repetitions.push(await all({ killAfterMs }));
  tell(`${repetitions.length}, killed after ${killAfterMs} ms`, repetitions.at(-1));
}

line(["server", "edits another client had seen", "lost", "kills with a loss", "oldest lost, seen before the kill", "control: lost before / after"]);
line(Array(6).fill("---"));
RIVALS.forEach((rival, nth) => line(row(rival, controls[nth], repetitions.map((runs) => runs[nth]))));
console.log();
RIVALS.forEach((rival) => console.log(`- ${rival.name}: ${rival.versions().join(", ")}`));
console.log(`- Node ${process.version}, ${cpus().length} cores, load ${before} before and ${load()} after; SEED=${SEED} REPETITIONS=${REPETITIONS}`);

const ours = [controls[0], ...repetitions.map((runs) => runs[0])];
process.exit(ours.every((run) => run.lost === 0 && run.seen > 0) ? 0 : 1);
