/** Every test starts servers and real clients: slow machines get their time, and files run one after another. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { testTimeout: 400_000, hookTimeout: 300_000, fileParallelism: false, include: ["test/**/*.test.ts"] },
});
