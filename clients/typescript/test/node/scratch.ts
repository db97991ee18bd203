/** A place for the directories of tests. */
import { existsSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A new directory; in memory where the system offers that, because what is tested here does not depend on a disk's speed. */
export function scratch(): Promise<string> {
  return mkdtemp(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "syncline-"));
}
