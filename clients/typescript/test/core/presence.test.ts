import { expect, it } from "vitest";
import { Driver, others } from "./driver.js";

const state = (text: string) => new TextEncoder().encode(text);
const shown = (driver: Driver) => driver.sent.flatMap((message) => (message.type === "presence" ? [message.state && new TextDecoder().decode(message.state)] : []));

function live(): Driver {
  const driver = new Driver();
  driver.open();
  driver.connect({ presence_per_second: 10, presence_ttl_ms: 10_000, idle_timeout_ms: 1_000_000 });
  driver.come(others("hello").all, [1, 1]);
  return driver;
}

it("l1_p3_is_sent_at_once_then_no_oftener_than_the_server_takes_it_and_always_the_last_state", () => {
  const driver = live();
  for (let at = 0; at < 100; at += 1) {
    driver.step({ type: "presence", document: "d", state: state(String(at)) });
    driver.pass(5);
  }
  expect(shown(driver)).toEqual(["0", "19", "39", "59", "79", "99"]);
});

it("p3_is_repeated_before_it_expires_until_it_is_taken_back", () => {
  const driver = live();
  driver.step({ type: "presence", document: "d", state: state("here") });
  driver.pass(21_000);
  expect(shown(driver)).toEqual(["here", "here", "here", "here", "here"]);
  driver.step({ type: "presence", document: "d", state: null });
  driver.pass(21_000);
  expect(shown(driver).slice(5)).toEqual([null]);
});
