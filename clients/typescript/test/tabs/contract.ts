/** What the tab primitives must do between pages. A test of an implementation calls `tabsContract` with a way to make origins. */
import { describe, expect, it } from "vitest";
import type { Lock, Tabs } from "../../src/tabs/tabs.js";

/** A page under test. */
export interface PageUnderTest {
  readonly tabs: Tabs;
  /** Closes the page, as a person does. */
  close(): Promise<void>;
  /** Ends the page without a word. */
  crash(): Promise<void>;
}

/** Runs the contract. `origin` gives a way to open pages that share one origin, and share nothing with those of earlier calls. */
export function tabsContract(name: string, origin: () => Promise<() => Promise<PageUnderTest>>): void {
  describe(`tabs contract: ${name}`, () => {
    it("tells all others, in order, and never itself", async () => {
      const open = await origin();
      const [first, second, third] = [await open(), await open(), await open()];
      const ears = [ear(), ear(), ear()] as const;
      const channel = first.tabs.channel("c", ears[0].hear);
      second.tabs.channel("c", ears[1].hear);
      third.tabs.channel("c", ears[2].hear);
      third.tabs.channel("other", () => expect.unreachable("this is another channel"));
      await Promise.all([ping(second.tabs, "c", ears[2]), ping(third.tabs, "c", ears[1])]);
      const message = { text: "é😀", bytes: new Uint8Array([0, 255]), list: [1, null] };
      channel.post(message);
      channel.post("second");
      for (const each of [ears[1], ears[2]]) {
        expect(await each.next((heard) => heard !== PING)).toEqual(message);
        expect(await each.next((heard) => heard !== PING)).toBe("second");
      }
      expect(ears[0].heard.filter((heard) => heard !== PING)).toEqual([]);
      await Promise.all([first, second, third].map((page) => page.close()));
    });

    it("hears nothing once closed", async () => {
      const open = await origin();
      const [first, second] = [await open(), await open()];
      const [closed, listening] = [ear(), ear()];
      const channel = second.tabs.channel("c", closed.hear);
      second.tabs.channel("c", listening.hear);
      const from = first.tabs.channel("c", () => undefined);
      await Promise.all([ping(first.tabs, "c", closed), ping(first.tabs, "c", listening)]);
      from.post("a");
      expect(await listening.next((heard) => heard !== PING)).toBe("a");
      expect(await closed.next((heard) => heard !== PING)).toBe("a");
      channel.close();
      channel.close();
      channel.post("never");
      // What was asked of a page after `close` is answered after it: from here on it is closed.
      (await second.tabs.lock("turn")).release();
      from.post("b");
      expect(await listening.next((heard) => heard === "b")).toBe("b");
      expect(closed.heard).toEqual([]);
      await Promise.all([first.close(), second.close()]);
    });

    it("gives a lock to one at a time, in the order asked for", async () => {
      const open = await origin();
      const [first, second] = [await open(), await open()];
      const held = await first.tabs.lock("l");
      const order: string[] = [];
      const waiting = watch(second.tabs.lock("l"), () => order.push("second"));
      expect(await second.tabs.tryLock("l")).toBeUndefined();
      expect(await first.tabs.tryLock("l")).toBeUndefined();
      const again = watch(first.tabs.lock("l"), () => order.push("first"));
      const elsewhere = await second.tabs.lock("elsewhere");
      expect(order).toEqual([]);
      held.release();
      held.release();
      const next = await waiting;
      expect(await first.tabs.tryLock("l")).toBeUndefined();
      expect(order).toEqual(["second"]);
      next.release();
      (await again).release();
      elsewhere.release();
      await eventually(async () => {
        const free = await second.tabs.tryLock("l");
        free?.release();
        return free !== undefined;
      });
      await Promise.all([first.close(), second.close()]);
    });

    it("takes a wait for a lock back", async () => {
      const open = await origin();
      const [first, second, third] = [await open(), await open(), await open()];
      const held = await first.tabs.lock("l");
      const abort = new AbortController();
      const reason = new Error("enough");
      const givenUp = second.tabs.lock("l", abort.signal).catch((error: unknown) => error);
      const waiting = third.tabs.lock("l");
      abort.abort(reason);
      expect(((await givenUp) as Error).message).toBe("enough");
      expect(((await second.tabs.lock("l", abort.signal).catch((error: unknown) => error)) as Error).message).toBe("enough");
      held.release();
      (await waiting).release();
      await Promise.all([first, second, third].map((page) => page.close()));
    });

    it("keeps a lock whose signal aborts after it was given", async () => {
      const open = await origin();
      const [first, second] = [await open(), await open()];
      const abort = new AbortController();
      const held = await first.tabs.lock("l", abort.signal);
      abort.abort();
      expect(await second.tabs.tryLock("l")).toBeUndefined();
      held.release();
      (await second.tabs.lock("l")).release();
      await Promise.all([first.close(), second.close()]);
    });

    for (const end of ["close", "crash"] as const) {
      it(`gives the locks of a page to others after its ${end}`, async () => {
        const open = await origin();
        const [first, second] = [await open(), await open()];
        await first.tabs.lock("a");
        await first.tabs.tryLock("b");
        const waiting = Promise.all([second.tabs.lock("a"), second.tabs.lock("b")]);
        expect(await second.tabs.tryLock("a")).toBeUndefined();
        await first[end]();
        for (const lock of await waiting) lock.release();
        await second.close();
      });
    }

    it("forgets what a crashed page was waiting for", async () => {
      const open = await origin();
      const [first, second, third] = [await open(), await open(), await open()];
      const held = await first.tabs.lock("l");
      void second.tabs.lock("l").catch(() => undefined);
      // The lock is asked for on this page before the third asks: a page is answered in the order of its calls.
      await second.tabs.tryLock("l");
      const waiting = third.tabs.lock("l");
      await second.crash();
      held.release();
      (await waiting).release();
      await Promise.all([first.close(), third.close()]);
    });
  });
}

const PING = "ping";

interface Ear {
  readonly hear: (message: unknown) => void;
  readonly heard: unknown[];
  /** The next message that passes; those before it are dropped. */
  next(passes?: (message: unknown) => boolean): Promise<unknown>;
}

function ear(): Ear {
  const heard: unknown[] = [];
  let wake = (): void => undefined;
  return {
    heard,
    hear: (message) => {
      heard.push(message);
      wake();
    },
    next: async (passes = () => true) => {
      for (;;) {
        while (heard.length > 0) {
          const message = heard.shift();
          if (passes(message)) return message;
        }
        await new Promise<void>((resolve) => (wake = resolve));
      }
    },
  };
}

/** Posts until it is heard: from then on both pages listen. */
async function ping(from: Tabs, name: string, by: Ear): Promise<void> {
  const channel = from.channel(name, () => undefined);
  await eventually(async () => {
    channel.post(PING);
    return by.heard.includes(PING);
  });
  channel.close();
}

async function watch(lock: Promise<Lock>, held: () => void): Promise<Lock> {
  const given = await lock;
  held();
  return given;
}

/** Asks again and again, a little later each time; the test's own limit ends it. */
async function eventually(holds: () => Promise<boolean>): Promise<void> {
  for (let waitMs = 1; !(await holds()); waitMs = Math.min(waitMs * 2, 200)) {
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}
