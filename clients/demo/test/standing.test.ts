// @vitest-environment happy-dom
/** What the light says. */
import type { Safety } from "@syncline/client";
import { expect, test } from "vitest";
import { makeLight } from "../src/standing";

test("the light speaks of this window, and of no change that another one has yet to send", () => {
  const light = makeLight();
  const words = new Set<string>();
  for (const safety of ["unstored", "local", "sent", "durable"] as const satisfies readonly Safety[]) {
    light.show(safety, safety === "durable" ? 0 : 2);
    expect(light.element.dataset["safety"]).toBe(safety);
    expect(light.element.title).toContain("your changes in this window");
    expect(light.element.querySelector(".sr-only")?.textContent).toBe(light.element.title);
    words.add(light.element.querySelector(".light-word")?.textContent ?? "");
  }
  expect([...words]).toEqual(["Writing", "Only here", "Sending", "Saved"]);
});
