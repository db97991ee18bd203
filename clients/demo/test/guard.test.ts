/** How often the page asks before it is left. */
import type { ClientEvents, Safety } from "@syncline/client";
import { expect, test } from "vitest";
import { makeGuard, type Guarded } from "../src/guard";

test("however often the storage fails one question is asked, and none once it has taken everything", () => {
  let guards = 0;
  let works = 0;
  let hear: (value: ClientEvents["safety"]) => void = () => undefined;
  const client = {
    guardUnload: () => {
      guards += 1;
      return () => void (guards -= 1);
    },
    on: (_event: "safety", hears: typeof hear) => (hear = hears),
  };
  const failed = makeGuard(client as unknown as Guarded, () => void (works += 1));
  const stands = (safety: Safety): void => hear({ safety, unsyncedChanges: safety === "durable" ? 0 : 1 });
  stands("local");
  expect([guards, works]).toEqual([0, 0]);
  for (let failures = 0; failures < 3; failures += 1) failed();
  expect(guards).toBe(1);
  for (const safety of ["unstored", "durable"] as const) stands(safety);
  expect([guards, works]).toEqual([1, 0]);
  for (const safety of ["local", "sent", "local"] as const) stands(safety);
  expect([guards, works]).toEqual([0, 1]);
  failed();
  expect(guards).toBe(1);
});
