/** The page with both versions of Automerge as they are, each one's WebAssembly in its scripts. */
import { defineConfig } from "vite";

export default defineConfig({
  root: import.meta.dirname,
  // Without the condition "browser", Automerge's packages bring their WebAssembly along and need no plugin.
  resolve: { conditions: ["module"] },
  build: { target: "es2022", chunkSizeWarningLimit: 16_384 },
});
