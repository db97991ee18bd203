/** A server in a process of its own, on a free port with a directory of its own; it can be killed and started again. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
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
