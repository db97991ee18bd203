import { expect, it } from "vitest";
import { MemoryOrigin } from "../../src/tabs/memory.js";
import { tabsContract } from "./contract.js";

tabsContract("memory", async () => {
  const origin = new MemoryOrigin();
  return { one: origin.page(), two: origin.page() };
});

it("a page that is killed lets go of its locks and hears nothing", async () => {
  const origin = new MemoryOrigin();
  const [one, two] = [origin.page(), origin.page()];
  const heard: unknown[] = [];
  one.channel("a", (message) => heard.push(message));
  await one.lock("l");
  const next = two.lock("l");
  one.kill();
  await next;
  two.channel("a", () => {}).post("anybody?");
  await Promise.resolve();
  expect(heard).toEqual([]);
});
