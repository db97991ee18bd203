/**
 * What an edit costs the server: Syncline and automerge-repo's own sync server, one after the other, with the same unmodified
 * clients on the same document: `make bench-repo`. One writer, five readers; edits one after another, then at once.
 */
import { Repo } from "@automerge/automerge-repo";
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket";
import * as Automerge from "@automerge/automerge";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";

const READERS = 5;
const EDITS = Number(process.env.EDITS ?? 20);
const BINARY = process.env.SYNCLINE_BIN ?? new URL("../../target/trials/syncline", import.meta.url).pathname;
const TRACES = process.env.SYNCLINE_TRACES ?? new URL("../../../shared/traces", import.meta.url).pathname;

/** The recorded writing of a paper, a change for each keystroke; where the recording is missing, one that is made up. */
function paper() {
  const path = join(TRACES, "automerge-paper.json.gz");
  const transactions = existsSync(path)
    ? JSON.parse(gunzipSync(readFileSync(path))).txns
    : Array.from({ length: 260_000 }, (_, place) => ({ patches: [[place, 0, "x"]] }));
  let document = Automerge.from({ text: "" });
  const keystrokes = Number(process.env.KEYSTROKES ?? transactions.length);
  for (const { patches } of transactions.slice(0, keystrokes)) {
    document = Automerge.change(document, (draft) => {
      for (const [place, removed, inserted] of patches) Automerge.splice(draft, ["text"], place, removed, inserted);
    });
  }
  return Automerge.save(document);
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** The processor time of a process and its threads, in microseconds. */
function processorUs(pid) {
  const threads = readdirSync(`/proc/${pid}/task`);
  const ns = threads.map((thread) => Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]));
  return ns.reduce((sum, one) => sum + one, 0) / 1_000;
}

async function until(condition, what) {
  const deadline = Date.now() + 600_000;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

const SERVERS = {
  async syncline(port, directory) {
    const child = spawn(BINARY, ["serve", "--dev", "--listen", `127.0.0.1:${port}`, "--data", directory], { stdio: "ignore" });
    return { child, url: `ws://127.0.0.1:${port}/sync` };
  },
  async "automerge-repo-sync-server"(port, directory) {
    const main = createRequire(import.meta.url).resolve("@automerge/automerge-repo-sync-server");
    const env = { ...process.env, PORT: String(port), DATA_DIR: directory };
    const child = spawn(process.execPath, [main], { cwd: dirname(main), env, stdio: "ignore" });
    return { child, url: `ws://127.0.0.1:${port}` };
  },
};

/** One server, one document: the figures. */
async function measure(name, saved) {
  const directory = mkdtempSync(join(tmpdir(), "syncline-bench-"));
  const { child, url } = await SERVERS[name](await freePort(), directory);
  const repos = [];
  const open = () => {
    const repo = new Repo({ network: [new WebSocketClientAdapter(url, 200)] });
    repos.push(repo);
    return repo;
  };
  try {
    const writer = open();
    await until(() => Object.keys(writer.peerMetadataByPeerId).length > 0, "the server answers");
    const mine = writer.import(saved);
    const readers = [];
    const joined = performance.now();
    while (readers.length < READERS) {
      const repo = open();
      await until(() => Object.keys(repo.peerMetadataByPeerId).length > 0, "the server answers a reader");
      for (;;) {
        const handle = await repo.find(mine.url).catch(() => undefined);
        if (handle !== undefined && handle.heads().join() === mine.heads().join()) {
          readers.push(handle);
          break;
        }
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
    const joinMs = (performance.now() - joined) / READERS;
    const all = () => readers.every((reader) => reader.heads().join() === mine.heads().join());
    // What was put off, merges and snapshots, is over before the edits are counted.
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    const figures = { name, joinMs };
    for (const [kind, atOnce] of [["apart", 1], ["together", EDITS]]) {
      const [cpu, time] = [processorUs(child.pid), performance.now()];
      for (let edit = 0; edit < EDITS; edit += atOnce) {
        for (let one = 0; one < atOnce; one += 1) {
          mine.change((draft) => Automerge.splice(draft, ["text"], 0, 0, "y"));
        }
        await until(all, "all readers have the edit");
      }
      figures[kind] = { cpuUs: (processorUs(child.pid) - cpu) / EDITS, ms: (performance.now() - time) / (EDITS / atOnce) };
    }
    return figures;
  } finally {
    for (const repo of repos) repo.networkSubsystem.disconnect();
    child.kill("SIGKILL");
    rmSync(directory, { recursive: true, force: true });
  }
}

const documents = { empty: Automerge.save(Automerge.from({ text: "" })), paper: paper() };
for (const [document, saved] of Object.entries(documents)) {
  for (const name of Object.keys(SERVERS)) {
    const { apart, together, joinMs } = await measure(name, saved);
    const part = (kind, { cpuUs, ms }) =>
      `${kind}: ${cpuUs.toFixed(0)} µs of processor per edit (${(cpuUs / READERS).toFixed(0)} per reader), ${ms.toFixed(0)} ms until all have it`;
    console.log(`${document}, ${name}: join ${joinMs.toFixed(0)} ms; ${part("apart", apart)}; ${part("together", together)}`);
  }
}
process.exit(0);
