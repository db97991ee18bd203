import { afterEach, describe, expect, it, vi } from "vitest";
import { browserTabs } from "../../src/tabs/browser.js";

afterEach(() => vi.unstubAllGlobals());

describe("a page without Web Locks and BroadcastChannel", () => {
  it("holds locks within itself, and hears nothing", async () => {
    vi.stubGlobal("navigator", {});
    vi.stubGlobal("BroadcastChannel", undefined);
    const [one, two] = [browserTabs(), browserTabs()];
    const channel = one.channel("c", () => expect.unreachable());
    channel.post("nobody hears this");
    channel.close();
    const held = await one.lock("l");
    expect(await two.tryLock("l")).toBeUndefined();
    const waiting = two.lock("l");
    held.release();
    (await waiting).release();
    const again = await one.tryLock("l");
    expect(again).toBeDefined();
    again?.release();
  });
});

describe("a browser that forgets an abort", () => {
  it("ends the wait at once all the same, and lets go of the lock when it comes", async () => {
    const waiting: Array<() => unknown> = [];
    const request = (_name: string, _options: object, granted: () => unknown): Promise<unknown> =>
      new Promise((done) => waiting.push(() => done(granted())));
    vi.stubGlobal("navigator", { locks: { request } });
    const abort = new AbortController();
    const given = browserTabs().lock("l", abort.signal);
    abort.abort(new Error("enough"));
    await expect(given).rejects.toThrow("enough");
    expect(waiting.map((grant) => grant())).toEqual([undefined]);
  });
});
