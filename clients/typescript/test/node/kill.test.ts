import { spawn, type ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fileStorage } from "../../src/node/index.js";
import { Random } from "../../src/core/random.js";
import { StorageError } from "../../src/storage/storage.js";
import { COUNT, numberOf, readable, stateAfter } from "./batches.js";
import { scratch } from "./scratch.js";

let folder: string;
let script: string;
beforeAll(async () => {
  folder = await scratch();
  script = join(folder, "writer.mjs");
  await build({ entryPoints: [join(import.meta.dirname, "writer.ts")], outfile: script, bundle: true, platform: "node", format: "esm", logLevel: "error" });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

type Writer = ChildProcessByStdio<null, Readable, null>;

/** A process that writes, once it does. `resolved` is the last number that it has printed. */
async function writer(directory: string): Promise<{ process: Writer; resolved(): number }> {
  const process = spawn(globalThis.process.execPath, [script, directory], { stdio: ["ignore", "pipe", "inherit"] });
  let printed = "";
  process.stdout.setEncoding("utf8").on("data", (text: string) => (printed += text));
  await once(process.stdout, "data");
  return { process, resolved: () => Number(printed.slice(0, printed.lastIndexOf("\n")).split("\n").pop()) };
}

async function kill(process: Writer): Promise<void> {
  const closed = once(process, "close");
  process.kill("SIGKILL");
  await closed;
}

describe("a writer that is killed", () => {
  it("leaves each batch whole or absent, and has lost none that resolved", { timeout: 240_000 }, async () => {
    const directory = join(folder, "killed");
    let last = 0;
    const random = new Random(new Uint8Array(32).fill(1));
    for (let round = 0; round < 15; round++) {
      const { process, resolved } = await writer(directory);
      await new Promise((resolve) => setTimeout(resolve, random.number() % 250));
      await kill(process);
      const storage = fileStorage(directory);
      const count = numberOf(await storage.get(COUNT));
      expect(count).toBeGreaterThanOrEqual(resolved());
      expect(count).toBeGreaterThanOrEqual(last);
      expect(readable(await storage.list(""))).toEqual(stateAfter(count));
      await storage.close();
      last = count;
    }
    expect(last).toBeGreaterThan(0);
    // Written anew on the way: the log is not the sum of all that was written.
    if (last > 1_000) expect((await readFile(join(directory, "log"))).length).toBeLessThan(last * 10_000);
  });

  it("holds the directory until it is gone", async () => {
    const directory = join(folder, "held");
    const { process } = await writer(directory);
    const storage = fileStorage(directory);
    const error = await storage.get(COUNT).catch((thrown: unknown) => thrown);
    expect((error as StorageError).kind).toBe("blocked");
    expect((error as StorageError).message).toContain(String(process.pid));
    await kill(process);
    await storage.get(COUNT);
    await storage.close();
  });
});
