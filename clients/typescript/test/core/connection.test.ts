import { describe, expect, it } from "vitest";
import { Driver, noLimits } from "./driver.js";

const kinds = (driver: Driver) => driver.effects.map(({ type }) => type);

describe("coming and going", () => {
  it("h2_h4_says_hello_first_and_open_right_behind", () => {
    const driver = new Driver();
    driver.open();
    driver.step({ type: "start" });
    driver.step({ type: "connected" });
    expect(driver.sent.map(({ type }) => type)).toEqual(["hello", "open"]);
    expect(driver.sent[0]).toMatchObject({ version: 1, token: null, capabilities: ["deflate", "bundle"] });
  });

  it("c5_backs_off_between_half_and_all_of_a_doubled_time_and_starts_anew_after_welcome", () => {
    const driver = new Driver();
    driver.step({ type: "start" });
    for (let attempt = 1; attempt <= 12; attempt += 1) {
      driver.step({ type: "disconnected", code: 1006 });
      const all = Math.min(100 * 2 ** (attempt - 1), 30_000);
      const wait = driver.core.nextWakeup! - driver.now;
      expect(wait).toBeGreaterThanOrEqual(all / 2);
      expect(wait).toBeLessThanOrEqual(all);
      driver.pass(wait);
    }
    driver.step({ type: "connected" });
    driver.say({ type: "welcome", session: 1, limits: noLimits, capabilities: [] });
    driver.step({ type: "disconnected", code: 1012 });
    expect(driver.core.nextWakeup! - driver.now).toBeLessThanOrEqual(100);
  });

  it("c3_final_codes_stop_the_client_until_it_is_told_otherwise", () => {
    for (const code of [1002, 1007, 1009, 4400, 4403, 4409, 4499]) {
      const driver = new Driver();
      driver.connect();
      driver.say({ type: "error", code, text: "because" });
      driver.step({ type: "disconnected", code });
      expect(driver.core.status).toEqual({ state: "rejected", code, reason: "because" });
      driver.effects = [];
      driver.pass(3_600_000);
      expect(kinds(driver)).not.toContain("connect");
      driver.step({ type: "start" });
      expect(kinds(driver)).toContain("connect");
    }
  });

  it("c3_an_error_counts_where_the_close_code_was_swallowed", () => {
    const driver = new Driver();
    driver.connect();
    driver.say({ type: "error", code: 4409, text: "dishonest" });
    driver.step({ type: "disconnected", code: 1006 });
    expect(driver.core.status).toMatchObject({ state: "rejected", code: 4409 });
  });

  it("c6_waits_as_long_as_the_server_asks_and_sends_nothing_new_meanwhile", () => {
    const driver = new Driver();
    driver.open(undefined, { text: "" });
    driver.connect();
    driver.come([], [1, 0]);
    driver.say({ type: "retry", after_ms: 5_000 });
    driver.sent = [];
    driver.pass(200);
    expect(driver.edits()).toEqual([]);
    driver.step({ type: "disconnected", code: 1012 });
    const wait = driver.core.nextWakeup! - driver.now;
    expect(wait).toBeGreaterThanOrEqual(250);
    driver.effects = [];
    driver.pass(4_900);
    expect(kinds(driver)).not.toContain("connect");
    driver.pass(500);
    expect(kinds(driver)).toContain("connect");
  });

  it("c10_asks_for_a_sign_of_life_and_takes_silence_for_death", () => {
    const driver = new Driver();
    driver.open();
    driver.connect();
    driver.come([], [1, 0]);
    driver.pass(23_000);
    expect(driver.edits()).toMatchObject([{ changes: [] }]);
    driver.say({ type: "ack", room: 1, id: driver.edits()[0]!.id, cursor: [1, 0] });
    driver.pass(40_000);
    expect(driver.core.status.state).toBe("connected");
    driver.effects = [];
    driver.pass(10_000);
    expect(kinds(driver)).toContain("disconnect");
    expect(driver.core.status.state).not.toBe("connected");
  });

  it("c10_o21_asks_without_a_room_too_and_keeps_a_connection_that_answers", () => {
    const driver = new Driver();
    driver.connect();
    for (let round = 1; round <= 5; round += 1) {
      driver.pass(23_000);
      expect(driver.edits()).toHaveLength(round);
      const { room, id } = driver.edits().at(-1)!;
      driver.say({ type: "reject", room, id, code: "not_open", text: "" });
    }
    expect(kinds(driver)).not.toContain("disconnect");
    expect(driver.errors()).toEqual([]);
    driver.pass(50_000);
    expect(kinds(driver)).toContain("disconnect");
  });

  it("gives up on a connection that is never made", () => {
    const driver = new Driver();
    driver.step({ type: "start" });
    driver.pass(10_000);
    expect(kinds(driver)).toEqual(expect.arrayContaining(["connect", "disconnect"]));
    expect(driver.core.status.state).not.toBe("connected");
  });
});

describe("tokens", () => {
  const asked = () => new Driver({ credentials: { kind: "asked" } });
  const needs = (driver: Driver) => kinds(driver).filter((kind) => kind === "need-token").length;

  it("a new one is asked for each attempt, and another in time before it expires", () => {
    const driver = asked();
    driver.step({ type: "start" });
    expect(kinds(driver)).not.toContain("connect");
    driver.step({ type: "token", token: { text: "one", expiresAt: 100_000 } });
    driver.step({ type: "disconnected", code: 1006 });
    driver.pass(200);
    expect(needs(driver)).toBe(2);
    driver.step({ type: "token", token: { text: "two", expiresAt: driver.now + 100_000 } });
    driver.step({ type: "connected" });
    driver.say({ type: "welcome", session: 1, limits: noLimits, capabilities: [] });
    expect(driver.sent).toMatchObject([{ type: "hello", token: "two" }]);
    for (let second = 0; second < 80; second += 1) {
      driver.pass(1_000);
      driver.say({ type: "retry", after_ms: 1 });
      if (needs(driver) === 3) break;
    }
    expect(needs(driver)).toBe(3);
    expect(driver.now).toBeLessThan(100_000);
    driver.step({ type: "token", token: { text: "three", expiresAt: undefined } });
    expect(driver.sent.at(-1)).toEqual({ type: "auth", token: "three" });
  });

  it("c4_one_new_token_after_4401_then_the_client_stops", () => {
    const driver = asked();
    driver.step({ type: "start" });
    for (const text of ["stale", "wrong"]) {
      driver.step({ type: "token", token: { text, expiresAt: undefined } });
      driver.step({ type: "connected" });
      driver.step({ type: "disconnected", code: 4401 });
    }
    expect(needs(driver)).toBe(2);
    expect(driver.core.status).toMatchObject({ state: "rejected", code: 4401 });
  });

  it("a function that fails or never answers is asked again, and the app is told", () => {
    const driver = asked();
    driver.step({ type: "start" });
    driver.step({ type: "token-failed", error: new Error("offline") });
    expect(driver.errors()).toEqual(["token"]);
    driver.pass(200);
    expect(needs(driver)).toBe(2);
    driver.pass(31_000);
    expect(needs(driver)).toBeGreaterThan(2);
  });
});

describe("what is not in the protocol", () => {
  it.each([
    ["bytes that are no message", { type: "frame", bytes: new Uint8Array([0x93, 0x13]) }],
    ["a message number that nobody knows", { type: "frame", bytes: new Uint8Array([0x91, 0x63]) }],
    ["a text", { type: "text" }],
  ] as const)("ends the connection with an error, and the client comes back: %s", (_, event) => {
    const driver = new Driver();
    driver.connect();
    driver.effects = [];
    driver.step(event);
    expect(driver.errors()).toEqual(["protocol"]);
    expect(kinds(driver)).toContain("disconnect");
    driver.pass(200);
    expect(kinds(driver)).toContain("connect");
  });
});
