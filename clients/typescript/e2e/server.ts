/** The real server as a child process, on a free port, with data of its own. */
import { spawn, type ChildProcess } from "node:child_process";
import { createHmac } from "node:crypto";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const BUILT = fileURLToPath(new URL("../../../target/debug/syncline", import.meta.url));
const SECRET = "a secret of thirty-two bytes or so, for tests only";

/** The binary under test. */
export const binary = process.env["SYNCLINE_BIN"] ?? BUILT;

export class Server {
  readonly #directory = mkdtempSync(join(tmpdir(), "syncline-e2e-"));
  readonly #dev: boolean;
  #process: ChildProcess | undefined;
  url = "";

  private constructor(dev: boolean) {
    this.#dev = dev;
  }

  /** `dev` serves without authentication. */
  static async start({ dev = true } = {}): Promise<Server> {
    if (!existsSync(binary)) throw new Error(`there is no server at ${binary}; build it, or set SYNCLINE_BIN`);
    const server = new Server(dev);
    await server.run("127.0.0.1:0");
    return server;
  }

  /** Starts the process; later times on the same data and the same port. */
  async run(listen = new URL(this.url).host): Promise<void> {
    const config = join(this.#directory, "syncline.toml");
    writeFileSync(config, this.#dev ? "" : `[auth]\nsecret = "${SECRET}"\n`);
    const flags = ["serve", "--listen", listen, "--data", join(this.#directory, "data"), "--config", config];
    const child = spawn(binary, this.#dev ? [...flags, "--dev"] : flags, { stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    let said = "";
    child.stderr.on("data", (text: Buffer) => (said += text.toString()));
    this.url = await new Promise((resolve, reject) => {
      let output = "";
      child.stdout.on("data", (text: Buffer) => {
        output += text.toString();
        const ready = /listening on (http:\/\/\S+)/.exec(output);
        if (ready !== null) resolve(ready[1]!);
      });
      child.on("exit", (code) => reject(new Error(`the server ended with ${code}: ${said}`)));
    });
  }

  /** kill -9. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async stop(): Promise<void> {
    await this.#end("SIGTERM");
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
  }
}

/** A token that the server takes. */
export function token(subject: string, docs: Record<string, "read" | "write">, ttlSeconds = 3_600): string {
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1_000) + ttlSeconds;
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ sub: subject, name: subject, exp, docs })}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}
