/**
 * Holds a directory against other processes, without the help of a lock in the system, which Node does not offer. It may use files
 * and look whether a process lives; it never waits.
 *
 * The holder is whom the file `lock-N` with the highest N names, for as long as that process lives. Whoever finds it gone makes
 * `lock-N+1`, which only one can, and then looks whether a higher one came in between. Numbers never go down: a holder that lets go
 * leaves its file, empty.
 */
import { randomUUID } from "node:crypto";
import { link, mkdir, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { StorageError } from "../storage/storage.js";
import { codeOf } from "./log.js";

/** A directory that this process holds. */
export interface HeldDirectory {
  release(): Promise<void>;
}

/** Holds a directory, made if it is missing. Fails with `blocked` while somebody else does. */
export async function holdDirectory(directory: string): Promise<HeldDirectory> {
  await mkdir(directory, { recursive: true });
  const numbers = await lockNumbers(directory);
  const former = Math.max(0, ...numbers);
  if (former > 0) await mustBeFree(directory, former);
  const mine = former + 1;
  await claim(directory, mine);
  if (Math.max(...(await lockNumbers(directory))) > mine) {
    await rm(lockPath(directory, mine), { force: true });
    throw blocked(directory, "another process was faster");
  }
  for (const number of numbers) await rm(lockPath(directory, number), { force: true });
  await removeDrafts(directory);
  return { release: () => truncate(lockPath(directory, mine)) };
}

async function mustBeFree(directory: string, number: number): Promise<void> {
  const holder = await readFile(lockPath(directory, number), "utf8").catch((error: unknown) => {
    if (codeOf(error) === "ENOENT") throw blocked(directory, "another process was faster");
    throw error;
  });
  const pid = Number(holder.split(" ")[0]);
  if (holder !== "" && holder === (await identityOf(pid))) throw blocked(directory, `the process ${pid} holds it`);
}

/** The file is there with its text or not at all. */
async function claim(directory: string, number: number): Promise<void> {
  const draft = join(directory, `claim-${process.pid}-${randomUUID()}`);
  await writeFile(draft, (await identityOf(process.pid)) ?? "", { mode: 0o600 });
  try {
    await link(draft, lockPath(directory, number));
  } catch (error) {
    if (codeOf(error) === "EEXIST") throw blocked(directory, "another process was faster");
    throw error;
  } finally {
    await rm(draft, { force: true });
  }
}

/** A process that was killed while it made its claim has left a file. */
async function removeDrafts(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const pid = /^claim-([0-9]+)-/.exec(name)?.[1];
    if (pid !== undefined && (await identityOf(Number(pid))) === undefined) await rm(join(directory, name), { force: true });
  }
}

async function lockNumbers(directory: string): Promise<number[]> {
  const names = await readdir(directory);
  return names.flatMap((name) => (/^lock-[1-9][0-9]{0,14}$/.test(name) ? [Number(name.slice(5))] : []));
}

function lockPath(directory: string, number: number): string {
  return join(directory, `lock-${number}`);
}

/**
 * What tells a living process from all others, those that had its number before included; undefined if there is none. Only Linux
 * says when a process began; elsewhere the number must do.
 */
async function identityOf(pid: number): Promise<string | undefined> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (codeOf(error) !== "EPERM") return undefined;
  }
  if (process.platform !== "linux") return `${pid}`;
  try {
    const [boot, stat] = await Promise.all([readFile("/proc/sys/kernel/random/boot_id", "utf8"), readFile(`/proc/${pid}/stat`, "utf8")]);
    // The 22nd field; the second is a name in parentheses that may hold spaces.
    const began = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return `${pid} ${boot.trim()} ${began}`;
  } catch {
    return `${pid}`;
  }
}

function blocked(directory: string, why: string): StorageError {
  return new StorageError("blocked", `${directory} is in use: ${why}; give each process a directory of its own`);
}
