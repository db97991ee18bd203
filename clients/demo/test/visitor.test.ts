/** What others show of themselves may be anything. */
import { expect, test } from "vitest";
import { freeColor, initials, inventName, readPerson, type Person } from "../src/visitor";

test("a state is taken in as far as it makes sense", () => {
  const read = (state: unknown, name?: string): Person => readPerson({ session: 11, subject: "ann", name, state });
  expect(read(undefined)).toEqual({ session: 11, isVouched: false, name: "ann", color: 3 });
  expect(read({ name: "  Bo  ", color: 2, card: "c", caret: { anchor: "1@a", head: "2@a" } })).toEqual({
    session: 11,
    isVouched: false,
    name: "Bo",
    color: 2,
    card: "c",
    caret: { anchor: "1@a", head: "2@a" },
  });
  expect(read({ name: "Mallory", color: -9 }, "Bo")).toMatchObject({ name: "Bo", isVouched: true, color: 1 });
  expect(read({ name: "x".repeat(1000), color: 1e300, caret: { anchor: 1, head: "2@a" }, card: {} })).toMatchObject({
    name: "x".repeat(32),
    color: expect.toSatisfy((color: number) => color >= 0 && color < 8),
  });
  for (const state of [null, [], "text", 7, { name: "   " }]) expect(read(state)).not.toHaveProperty("caret");
  expect(read({ name: "" }).name).toBe("Somebody");
});

test("colours are shared only when there are none left", () => {
  const people = (...colors: number[]): Person[] =>
    colors.map((color, session) => ({ session, color, name: "", isVouched: false }));
  expect(freeColor(2, people())).toBe(2);
  expect(freeColor(7, people(7, 0))).toBe(1);
  expect(freeColor(3, people(0, 1, 2, 3, 4, 5, 6, 7))).toBe(3);
});

test("names and their letters", () => {
  expect(inventName(() => 0)).toBe("Amber Badger");
  expect(inventName(() => 0.999)).toBe("Swift Wren");
  expect(initials("Ann Maria Example")).toBe("AE");
  expect(initials("bo")).toBe("BO");
  expect(initials("😀x")).toBe("😀X");
});
