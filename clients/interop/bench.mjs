/**
 * What an edit costs the server: Syncline and automerge-repo's own sync server, one after the other, with the same unmodified
 * clients on the same document: `make bench-repo`. One writer, five readers; edits one after another, then at once.
 *
 * RUNS, EDITS, MINUTES and PATIENCE_S bound it; DOCUMENT (empty, paper) and SERVER (syncline, sync-server) name one of each.
 * It ends by itself: a server that does not bring everybody there in time is given up, and no run begins past the time for all.
 */
import { Repo } from "@automerge/automerge-repo";
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket";
import * as Automerge from "@automerge/automerge";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { createRequire } from "node:module";
import { loadavg, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";

const READERS = 5;
const EDITS = Number(process.env.EDITS ?? 50);
const RUNS = Number(process.env.RUNS ?? 3);
/** No run begins later, and nothing is waited for longer. */
const MINUTES = Number(process.env.MINUTES ?? 20);
const PATIENCE_MS = Number(process.env.PATIENCE_S ?? 120) * 1_000;
/** How long the server is looked at before the edits, and after them. */
const QUIET_MS = 5_000;
/**
 * It has nothing more to do when it has taken no more processor time than this in each of so many seconds: Syncline gives a document
 * that has been at rest for ten a snapshot.
 */
const IDLE_MS = 10;
const IDLE_SECONDS = 12;
const TARGET = new URL("../../target", import.meta.url).pathname;
const BINARY = process.env.SYNCLINE_BIN ?? join(TARGET, "release/syncline");
const TRACES = process.env.SYNCLINE_TRACES ?? new URL("../../../shared/traces", import.meta.url).pathname;

/** The recorded writing of a paper, a change for each keystroke; where the recording is missing, one that is made up. */
function paper() {
  const path = join(TRACES, "automerge-paper.json.gz");
  const transactions = existsSync(path)
    ? JSON.parse(gunzipSync(readFileSync(path))).txns
    : Array.from({ length: 260_000 }, (_, place) => ({ patches: [[place, 0, "x"]] }));
  const keystrokes = Math.min(transactions.length, Number(process.env.KEYSTROKES ?? transactions.length));
  const kept = join(TARGET, "bench", `${existsSync(path) ? "paper" : "made-up"}-${keystrokes}.automerge`);
  if (existsSync(kept)) return readFileSync(kept);
  let document = Automerge.from({ text: "" });
  for (const { patches } of transactions.slice(0, keystrokes)) {
    document = Automerge.change(document, (draft) => {
      for (const [place, removed, inserted] of patches) Automerge.splice(draft, ["text"], place, removed, inserted);
    });
  }
  const saved = Automerge.save(document);
  mkdirSync(dirname(kept), { recursive: true });
  writeFileSync(kept, saved);
  return saved;
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The processor time of a process, its ended threads included, in milliseconds: exact to ten. */
function processorMs(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

/** The same of the threads that it has now, exact to less than a microsecond. */
function threadsMs(pid) {
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.reduce((sum, thread) => sum + Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]) / 1e6, 0);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(condition, what) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`not within ${PATIENCE_MS / 1_000} s: ${what}`);
    await pause(2);
  }
}

/** Waits until what an import leaves to do, merges and a snapshot, is done: the edits are measured, not that. */
async function settled(pid) {
  const deadline = Date.now() + PATIENCE_MS;
  for (let seconds = 0; seconds < IDLE_SECONDS && Date.now() < deadline; ) {
    const before = processorMs(pid);
    await pause(1_000);
    seconds = processorMs(pid) - before > IDLE_MS ? 0 : seconds + 1;
  }
}

const SERVERS = {
  syncline(port, directory) {
    const child = spawn(BINARY, ["serve", "--dev", "--listen", `127.0.0.1:${port}`, "--data", directory], { stdio: "ignore" });
    return { child, url: `ws://127.0.0.1:${port}/sync` };
  },
  "sync-server"(port, directory) {
    const main = createRequire(import.meta.url).resolve("@automerge/automerge-repo-sync-server");
    const env = { ...process.env, PORT: String(port), DATA_DIR: directory };
    const child = spawn(process.execPath, [main], { cwd: dirname(main), env, stdio: "ignore" });
    return { child, url: `ws://127.0.0.1:${port}` };
  },
};

/** A client whose first try fails leaves sockets behind, which then fail unheard: so nobody tries before the server listens. */
async function listens(url) {
  const { hostname, port } = new URL(url);
  const connects = () =>
    new Promise((resolve) => {
      const socket = connect(Number(port), hostname);
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
      socket.once("connect", () => socket.destroy());
    });
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await connects())) {
    if (Date.now() > deadline) throw new Error("the server does not listen");
    await pause(50);
  }
}

/** Long: a busy client is not to connect again and again. */
const RETRY_MS = 60_000;

/** Counts what comes from the server. */
class CountingAdapter extends WebSocketClientAdapter {
  bytesIn = 0;

  receiveMessage(bytes) {
    this.bytesIn += bytes.byteLength;
    super.receiveMessage(bytes);
  }
}

/** One server, one document: the figures. */
async function measure(name, saved) {
  const directory = mkdtempSync(join(tmpdir(), "syncline-bench-"));
  const { child, url } = SERVERS[name](await freePort(), directory);
  const repos = [];
  const readers = [];
  const figures = {};
  const open = async () => {
    const adapter = new CountingAdapter(url, RETRY_MS);
    const repo = new Repo({ network: [adapter] });
    repos.push(repo);
    await until(() => Object.keys(repo.peerMetadataByPeerId).length > 0, "the server answers");
    return { repo, adapter };
  };
  const during = async (what, edits) => {
    const [cpu, time] = [processorMs(child.pid), performance.now()];
    const result = await what();
    return { result, cpu: (processorMs(child.pid) - cpu) / edits, time: (performance.now() - time) / edits };
  };
  try {
    await listens(url);
    // All are connected before the import: while that is being made ready, this process answers nobody.
    const clients = [];
    while (clients.length <= READERS) clients.push(await open());
    const [writer, first, ...others] = clients;
    const imported = await during(async () => {
      const mine = writer.repo.import(saved);
      readers.push(await findSoon(first.repo, mine));
      return mine;
    }, 1);
    const mine = imported.result;
    const upkeep = await during(() => settled(child.pid), 1);
    for (const { repo, adapter } of others) {
      const bytesBefore = adapter.bytesIn;
      const join = await during(async () => readers.push(await findSoon(repo, mine)), 1);
      figures["join ms"] ??= join.time;
      figures["join CPU ms"] ??= join.cpu;
      figures["join bytes"] ??= adapter.bytesIn - bytesBefore;
    }
    figures["import CPU ms"] = imported.cpu;
    figures["CPU ms until it is done with the import"] = upkeep.cpu;
    const all = () => readers.every((reader) => reader.heads().join() === mine.heads().join());
    const type = () => mine.change((draft) => Automerge.splice(draft, ["text"], 0, 0, "y"));
    await settled(child.pid);
    const resting = threadsMs(child.pid);
    await pause(QUIET_MS);
    const restPerMs = (threadsMs(child.pid) - resting) / QUIET_MS;
    const apart = await during(async () => {
      for (let edit = 0; edit < EDITS; edit += 1) {
        type();
        await until(all, "all readers have an edit");
      }
    }, EDITS);
    const together = await during(async () => {
      for (let edit = 0; edit < EDITS; edit += 1) type();
      await until(all, "all readers have all edits");
    }, EDITS);
    const later = await during(() => pause(QUIET_MS), 1);
    figures["one by one: CPU µs per edit and reader"] = (apart.cpu * 1_000) / READERS;
    figures["of it what it takes at rest in that time"] = (restPerMs * apart.time * 1_000) / READERS;
    figures["one by one: ms until all have it"] = apart.time;
    figures["at once: CPU µs per edit and reader"] = (together.cpu * 1_000) / READERS;
    figures["at once: ms until all have all"] = together.time * EDITS;
    figures["CPU ms in the 5 s after"] = later.cpu;
  } catch (error) {
    figures.failed = error.message;
  } finally {
    for (const repo of repos) repo.networkSubsystem.disconnect();
    child.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  }
  return figures;
}

async function findSoon(repo, mine) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const handle = await repo.find(mine.url).catch(() => undefined);
    if (handle !== undefined) {
      await until(() => handle.heads().join() === mine.heads().join(), "a reader has the document");
      return handle;
    }
    if (Date.now() > deadline) throw new Error(`not within ${PATIENCE_MS / 1_000} s: the document is found`);
    await pause(50);
  }
}

function median(values) {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.floor(sorted.length / 2)];
}

const begun = Date.now();
const documents = { empty: Automerge.save(Automerge.from({ text: "" })), paper: paper() };
const chosen = process.env.DOCUMENT === undefined ? Object.keys(documents) : [process.env.DOCUMENT];
const load = () => loadavg().map((one) => one.toFixed(1)).join(" ");
console.log(`paper: ${Automerge.getAllChanges(Automerge.load(documents.paper)).length} changes, ${documents.paper.byteLength} bytes saved`);
console.log(`${RUNS} runs, ${EDITS} edits each way, ${READERS} readers; load at the beginning ${load()}`);
const results = new Map();
for (let run = 0; run < RUNS; run += 1) {
  for (const document of chosen) {
    for (const name of Object.keys(SERVERS).filter((name) => [undefined, name].includes(process.env.SERVER))) {
      if (Date.now() - begun > MINUTES * 60_000) continue;
      const figures = await measure(name, documents[document]);
      console.log(JSON.stringify({ run, document, name, ...figures }));
      results.set(`${document}, ${name}`, [...(results.get(`${document}, ${name}`) ?? []), figures]);
    }
  }
}
console.log(`load at the end ${load()}; medians, least to most`);
for (const [what, runs] of results) {
  console.log(`${what}, ${runs.length} runs`);
  for (const key of Object.keys(runs[0])) {
    const values = runs.map((figures) => figures[key]).filter((value) => typeof value === "number");
    if (values.length > 0) {
      console.log(`  ${key}: ${median(values).toFixed(0)} (${Math.min(...values).toFixed(0)} to ${Math.max(...values).toFixed(0)})`);
    }
  }
}
process.exit(0);
