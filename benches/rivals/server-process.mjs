/**
 * A server in a process of its own, on loopback, with data of its own; killed, and started again on the same data but on another
 * port, so that a client from before, which would bring back what the server has lost, cannot come back. It ends nothing but what it
 * has started, and waits for nothing without a limit.
 */
import { spawn } from "node:child_process";
import { connect, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** Longer than a start takes on a machine ten times slower. */
const START_MS = 60_000;
/** How much of what a server says is kept for the error. */
const SAID_CHARS_MAX = 4_000;

const running = new Set();
/** Ports that a server has had: no other one gets them. */
const used = new Set();
process.once("exit", () => running.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

/** What the promise gives, or an error when it takes longer. */
export async function within(ms, promise, what) {
  const late = new AbortController();
  const limit = sleep(ms, undefined, { signal: late.signal }).then(() => Promise.reject(new Error(`waited in vain: ${what}`)));
  limit.catch(() => {});
  return Promise.race([promise, limit]).finally(() => late.abort());
}

/** Waits until the condition holds. */
export async function until(condition, ms, what) {
  for (const deadline = Date.now() + ms; !(await condition()); await sleep(10)) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
  }
}

export class ServerProcess {
  #command;
  #directory;
  #child;
  #said = "";

  /** Where it listens since it was last run. */
  port = 0;

  /** `command(port, directory)` says what to run: `file`, `args`, `env`. */
  static async start(command, directory) {
    const server = new ServerProcess();
    server.#command = command;
    server.#directory = directory;
    await server.run();
    return server;
  }

  /** Runs until it takes connections. */
  async run() {
    this.port = await freePort();
    const { file, args, env = {} } = this.#command(this.port, this.#directory);
    const options = { cwd: this.#directory, env: { PATH: process.env.PATH, ...env }, stdio: ["ignore", "pipe", "pipe"] };
    const child = spawn(file, args, options);
    this.#child = child;
    running.add(child);
    child.on("error", (error) => this.#hear(`${error}`));
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => this.#hear(`${text}`));
    const over = () => child.exitCode !== null || child.signalCode !== null || child.pid === undefined;
    await until(async () => over() || (await answers(this.port)), START_MS, `${file} to listen\n${this.#said}`);
    if (over()) throw new Error(`${file} ended before it listened:\n${this.#said}`);
  }

  /** SIGKILL, at once; resolves when the process is gone. */
  async kill() {
    const child = this.#child;
    if (child === undefined || !running.has(child)) return;
    const gone = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    if (child.exitCode === null && child.signalCode === null) await within(START_MS, gone, "the killed server's end");
    running.delete(child);
  }

  #hear(text) {
    this.#said = (this.#said + text).slice(-SAID_CHARS_MAX);
  }
}

async function freePort() {
  for (;;) {
    const server = createServer();
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address();
    await new Promise((resolve) => server.close(resolve));
    if (used.has(port)) continue;
    used.add(port);
    return port;
  }
}

function answers(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    const end = (answer) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
  });
}
