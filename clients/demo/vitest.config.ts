/** The parts of the page that need no browser, in Node, where Automerge brings its WebAssembly along. */
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: {
    alias: { "@syncline/client": fileURLToPath(new URL("../typescript/src/index.ts", import.meta.url)) },
  },
  test: { include: ["test/**/*.test.ts"], testTimeout: 300_000, hookTimeout: 300_000 },
});
