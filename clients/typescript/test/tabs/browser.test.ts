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
