/** How the example is built: Automerge's WebAssembly comes in its scripts, so that no plugin is needed. */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { defineConfig } from "vite";

const automerge = dirname(createRequire(import.meta.url).resolve("@automerge/automerge/automerge.wasm"));

export default defineConfig({
  resolve: {
    alias: [{ find: /^@automerge\/automerge$/, replacement: join(automerge, "mjs/entrypoints/fullfat_base64.js") }],
  },
  build: { target: "es2022", chunkSizeWarningLimit: 8_192 },
});
