/**
 * Starts the server's binary for the tests, as its users do: a data directory of its own, a free port, and what it prints when
 * it is ready. `SYNCLINE_BIN` names another binary than the one that `cargo build` leaves.
 */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

const BINARY = resolve(process.env["SYNCLINE_BIN"] ?? join(import.meta.dirname, "../../../target/debug/syncline"));

/** What a token is made of, in the words of `syncline token`. */
export interface Bearer {
  readonly sub: string;
  readonly name?: string;
  readonly docs: readonly string[];
  readonly ttl?: string;
}

/** A server. It keeps its port and its data over kills and restarts. */
export class Server {
  readonly #directory: string;
  readonly #arguments: readonly string[];
  #process: ChildProcess | undefined;
  #address: string | undefined;

  private constructor(directory: string, flags: readonly string[]) {
    this.#directory = directory;
    this.#arguments = ["serve", "--data", join(directory, "data"), ...flags];
  }

  /** A server that lets everybody in. */
  static async open(): Promise<Server> {
    const server = new Server(await newDirectory(), ["--dev"]);
    await server.start();
    return server;
  }

  /** A server that wants a token. */
  static async locked(): Promise<Server> {
    const directory = await newDirectory();
    const { stdout } = await promisify(execFile)(BINARY, ["key", "--alg", "HS256"]);
    const config = join(directory, "syncline.toml");
    await writeFile(config, stdout);
    const server = new Server(directory, ["--config", config]);
    await server.start();
    return server;
  }

  /** Where it listens: `http://127.0.0.1:PORT`. */
  get url(): string {
    if (this.#address === undefined) throw new Error("the server has not started yet");
    return `http://${this.#address}`;
  }

  /** Starts it, on the port that it had before. */
  async start(): Promise<void> {
    const listen = ["--listen", this.#address ?? "127.0.0.1:0"];
    const child = spawn(BINARY, [...this.#arguments, ...listen], { cwd: this.#directory, stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    const complaints: string[] = [];
    child.stderr.on("data", (bytes: Buffer) => complaints.push(bytes.toString()));
    for await (const line of createInterface({ input: child.stdout })) {
      const address = /^listening on http:\/\/(\S+)$/.exec(line)?.[1];
      if (address === undefined) continue;
      this.#address = address;
      // What it prints later is not read here, but must not fill the pipe.
      child.stdout.resume();
      return;
    }
    throw new Error(`the server did not start: ${complaints.join("")}`);
  }

  /** Ends it as a power cut ends a process. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** Stops it for good. */
  async close(): Promise<void> {
    await this.#end("SIGTERM");
    await rm(this.#directory, { recursive: true, force: true, maxRetries: 5 });
  }

  /** A signed token. */
  async token({ sub, name, docs, ttl = "1h" }: Bearer): Promise<string> {
    const flags = ["token", "--sub", sub, "--ttl", ttl, ...(name === undefined ? [] : ["--name", name])];
    for (const doc of docs) flags.push("--doc", doc);
    const { stdout } = await promisify(execFile)(BINARY, flags, { cwd: this.#directory });
    return stdout.trim();
  }

  async #end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  }
}

function newDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), "syncline-server-"));
}
