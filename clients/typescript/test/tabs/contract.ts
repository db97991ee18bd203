/** What the pages of an origin must share. An implementation's test calls `tabsContract` with a way to make pages. */
import { describe, expect, it } from "vitest";
import type { Tabs } from "../../src/tabs/tabs.js";

/** Two pages of one origin. */
export interface PagesUnderTest {
  readonly one: Tabs;
  readonly two: Tabs;
}

const soon = () => new Promise((resolve) => setTimeout(resolve, 50));

export function tabsContract(name: string, make: () => Promise<PagesUnderTest>): void {
  describe(`tabs contract: ${name}`, () => {
    it("tells the others, in order, and not the one who speaks", async () => {
      const { one, two } = await make();
      const [heard, echo, elsewhere]: unknown[][] = [[], [], []];
      const done = new Promise<void>((resolve) => {
        two.channel("a", (message) => {
          heard!.push(message);
          if (heard!.length === 2) resolve();
        });
      });
      two.channel("b", (message) => elsewhere!.push(message));
      const channel = one.channel("a", (message) => echo!.push(message));
      channel.post({ bytes: new Uint8Array([1, 2]) });
      channel.post("second");
      await done;
      expect(heard).toEqual([{ bytes: new Uint8Array([1, 2]) }, "second"]);
      await soon();
      expect([echo, elsewhere]).toEqual([[], []]);
      channel.close();
    });

    it("gives a lock to one page at a time, and to the next when it is released", async () => {
      const { one, two } = await make();
      const held = await one.lock("l");
      expect(await two.tryLock("l")).toBeUndefined();
      expect(await one.tryLock("l")).toBeUndefined();
      const other = await two.tryLock("other");
      expect(other).toBeDefined();
      let granted = false;
      const next = two.lock("l").then((lock) => {
        granted = true;
        return lock;
      });
      await soon();
      expect(granted).toBe(false);
      held.release();
      const second = await next;
      held.release();
      expect(await one.tryLock("l")).toBeUndefined();
      second.release();
      other?.release();
      (await one.lock("l")).release();
    });

    it("gives up waiting when told so", async () => {
      const { one, two } = await make();
      const held = await one.lock("l");
      const signal = new AbortController();
      const waiting = two.lock("l", signal.signal);
      signal.abort(new Error("enough"));
      await expect(waiting).rejects.toThrow("enough");
      await expect(two.lock("l", signal.signal)).rejects.toThrow("enough");
      held.release();
      (await two.lock("l")).release();
    });
  });
}
