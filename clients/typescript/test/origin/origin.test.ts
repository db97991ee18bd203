import * as A from "@automerge/automerge";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { DOCUMENT, SimulatedOrigin, type Shared } from "./origin.js";

const SEEDS = Number(process.env["SEEDS"] ?? 8);
const FIRST = Number(process.env["SEED"] ?? 1);
const STEPS = 120;

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

describe("pages of one origin that crash, lose the network and share a disk that fails", () => {
  for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
    it(`converge and lose nothing that was stored, and double nothing: seed ${seed}`, async () => {
      const origin = new SimulatedOrigin(seed);
      for (let step = 0; step < STEPS; step++) await origin.step();
      await origin.settle();
      const server = origin.server.doc<Shared>(DOCUMENT);
      const counts = new Map<string, number>();
      for (const id of server.ids) counts.set(id, (counts.get(id) ?? 0) + 1);
      expect([...counts].filter(([, count]) => count > 1)).toEqual([]);
      if (process.env["STORY"]) console.log(origin.story.join("\n"), origin.errors);
      expect([...origin.must].filter((id) => !counts.has(id))).toEqual([]);
      for (const page of origin.pages) {
        expect(page.client.status.state).toBe("connected");
        expect(A.getHeads(page.handle.doc())).toEqual(A.getHeads(server));
        expect([page.handle.safety, page.handle.unsyncedChanges]).toEqual(["durable", 0]);
        expect(page.handle.drafts.list()).toEqual([]);
      }
      expect([...origin.disk.entries.keys()].filter((key) => key.includes("/q/"))).toEqual([]);
      expect(origin.errors.filter((error) => !error.includes(" storage: "))).toEqual([]);
      await origin.end();
    });
  }
});
