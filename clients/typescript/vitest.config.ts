/** Limits for a machine that is ten times slower than a quiet one. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { testTimeout: 60_000, hookTimeout: 60_000 },
});
