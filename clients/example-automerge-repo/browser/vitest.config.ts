/** The page in Chromium, against the server as it is built. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["browser/*.browser.ts"], testTimeout: 180_000, hookTimeout: 180_000 },
});
