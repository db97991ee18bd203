/** Unit tests and the simulation; the end-to-end tests have `vitest.e2e.config.ts`. */
import { defineConfig } from "vitest/config";

export default defineConfig({ test: { include: ["test/**/*.test.{ts,tsx}"], testTimeout: 600_000, hookTimeout: 300_000 } });
