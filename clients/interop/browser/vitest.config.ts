/** The clients in Chromium, against the server as it is built. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["browser/*.browser.ts"], testTimeout: 600_000, hookTimeout: 300_000 },
});
