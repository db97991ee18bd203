/** Seeded runs. A seed that fails is run again with `SEED=n npx vitest run test/sim`. */
import { expect, it } from "vitest";
import { allFaults, simulate, type Faults } from "./simulation.js";

const calm: Faults = { cut: 0, crash: 0, kill: 0, reject: 0, quarantine: 0, restore: 0, full: 0, offline: 0 };
const named = process.env["SEED"];

async function check(seed: number, steps: number, faults: Faults): Promise<void> {
  const { complaints, edits, trace } = await simulate(seed, steps, faults);
  expect(edits).toBeGreaterThan(0);
  if (complaints.length > 0) throw new Error(`seed ${seed}:\n${complaints.join("\n")}\n\n${trace}`);
}

/** `SEED=7` is one, `SEED=1-50` are many. */
const [first, last = first] = (named ?? "").split("-").map(Number);
const seeds = named === undefined ? [] : Array.from({ length: last! - first! + 1 }, (_, at) => first! + at);

it.skipIf(named === undefined).each(seeds)("the named seed %i", async (seed) => check(seed, 120, allFaults));

it.each([1, 2, 3])("pages of two origins converge while all is well: seed %i", (seed) => check(seed, 30, calm));

it.each([1, 2, 3])("over cuts and crashes: seed %i", (seed) => check(seed, 60, { ...calm, cut: 6, crash: 15 }));

it.each([1, 2, 3])("over pages that die and a storage that is full: seed %i", (seed) => check(seed, 60, { ...calm, kill: 8, full: 20, offline: 15 }));

it.each(Array.from({ length: 12 }, (_, at) => at + 1))("over everything: seed %i", (seed) => check(seed, 120, allFaults));

it.each([14, 47, 129])("over everything, as it once went wrong: seed %i", (seed) => check(seed, 120, allFaults));

it.each(["queues are never adopted", "the server forgets", "two pages think that they are one"] as const)(
  "a fault that is planted is found: %s",
  async (planted) => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const { complaints } = await simulate(seed, 60, { ...calm, kill: 8, cut: 12, quarantine: 30 }, planted);
      if (complaints.length > 0) return;
    }
    throw new Error("twenty runs, and not one complaint");
  },
);

it("one seed, one run", async () => {
  const [one, two] = [await simulate(5, 40, allFaults), await simulate(5, 40, allFaults)];
  expect(one).toEqual(two);
});
