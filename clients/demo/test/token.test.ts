/** What the page reads out of a token, which anybody may have written. */
import { expect, test } from "vitest";
import { readClaims } from "../src/token";

function token(claims: string): string {
  return `e30.${Buffer.from(claims).toString("base64url")}.signature`;
}

test("a name and an expiry, and nothing out of what is no token", () => {
  expect(readClaims(token('{"name":"Ånn ✓","exp":100}'))).toEqual({ name: "Ånn ✓", expiresAt: 100_000 });
  expect(readClaims(token('{"sub":"ann"}'))).toEqual({ name: undefined, expiresAt: undefined });
  expect(readClaims(token('{"name":7,"exp":"soon"}'))).toEqual({ name: undefined, expiresAt: undefined });
  for (const text of [undefined, "", "nonsense", "a.b.c", token("[1"), token("null")]) {
    expect(readClaims(text)).toEqual({ name: undefined, expiresAt: undefined });
  }
});
