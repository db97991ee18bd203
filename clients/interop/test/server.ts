/** A server in a process of its own, on a free port with a directory of its own; it can be killed and started again. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";

/** The server under test. */
export const BINARY = process.env["SYNCLINE_BIN"] ?? new URL("../../../target/debug/syncline", import.meta.url).pathname;

export class TestServer {
  #process: ChildProcess | undefined;
  #port = 0;

  private constructor(
    readonly directory: string,
    readonly environment: Record<string, string>,
  ) {}

  /** Starts in development mode, or with what the environment says. */
  static async start(environment: Record<string, string> = { SYNCLINE_DEV: "true" }): Promise<TestServer> {
    const server = new TestServer(await mkdtemp(join(tmpdir(), "syncline-")), environment);
    await server.run();
    return server;
  }

  /** Where WebSockets connect. */
  get url(): string {
    return `ws://127.0.0.1:${this.#port}/sync`;
  }

  /** The server's process. */
  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** Runs, on the port of the last run if there was one. */
  async run(): Promise<void> {
    const child = spawn(BINARY, ["serve", "--listen", `127.0.0.1:${this.#port}`, "--data", this.directory], {
      env: { PATH: process.env["PATH"] ?? "", ...this.environment },
      stdio: ["ignore", "pipe", process.env["SYNCLINE_SHOW_LOG"] === undefined ? "ignore" : "inherit"],
    });
    this.#process = child;
    const lines = createInterface({ input: child.stdout });
    for await (const line of lines) {
      const port = /^listening on http:\/\/.*:(\d+)$/.exec(line)?.[1];
      if (port !== undefined) {
        this.#port = Number(port);
        return;
      }
    }
    throw new Error(`${BINARY} ended before it listened`);
  }

  /** Ends the process by a signal and waits for that. */
  async end(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
  }

  /** Ends the process and removes its directory. */
  async remove(): Promise<void> {
    await this.end("SIGKILL");
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** automerge-repo's own sync server, to compare with. */
export class OfficialServer {
  private constructor(
    readonly url: string,
    readonly child: ChildProcess,
    readonly directory: string,
  ) {}

  static async start(): Promise<OfficialServer> {
    const directory = await mkdtemp(join(tmpdir(), "sync-server-"));
    const port = await freePort();
    const main = createRequire(import.meta.url).resolve("@automerge/automerge-repo-sync-server");
    const env = { ...process.env, PORT: String(port), DATA_DIR: directory };
    const child = spawn(process.execPath, [main], { cwd: dirname(main), env, stdio: ["ignore", "pipe", "ignore"] });
    for await (const line of createInterface({ input: child.stdout })) {
      if (line.startsWith("Listening")) return new OfficialServer(`ws://127.0.0.1:${port}`, child, directory);
    }
    throw new Error("the sync server ended before it listened");
  }

  /** Ends the process and removes its directory. */
  async remove(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    this.child.kill("SIGKILL");
    await ended;
    await rm(this.directory, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("a listening server has a port");
  return address.port;
}
