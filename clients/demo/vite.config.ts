/**
 * How the page is built: into `dist`, which the server holds. Automerge's WebAssembly is a file of its own, every file has its
 * gzip beside it, and the service worker knows the list of files.
 */
import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { gzipSync, constants } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

const WORKER = "worker.js";

/** Below this a file is sent as it is. */
const GZIP_FROM_BYTES = 1024;

/** Tells the service worker what the page is made of, and its version: a hash of just that. */
function listFiles(): Plugin {
  return {
    name: "list-files",
    generateBundle: {
      order: "post",
      async handler(_options, bundle) {
        const built = Object.keys(bundle).filter((name) => name !== WORKER && name !== "index.html");
        const fixed = await readdir(fileURLToPath(new URL("public", import.meta.url)));
        const page = bundle["index.html"];
        const worker = bundle[WORKER];
        if (page?.type !== "asset" || worker?.type !== "chunk") throw new Error("the build lacks the page or its worker");
        const hash = createHash("sha256").update(page.source).update(built.join("\n")).update(worker.code);
        for (const name of fixed) hash.update(await readFile(new URL(`public/${name}`, import.meta.url)));
        const files = ["./", ...built, ...fixed];
        const version = hash.digest("hex").slice(0, 16);
        worker.code = `const PAGE_FILES=${JSON.stringify(files)},PAGE_VERSION="${version}";${worker.code}`;
      },
    },
  };
}

/** The browser may fetch Automerge's WebAssembly while it still reads the scripts. */
function preloadWasm(): Plugin {
  return {
    name: "preload-wasm",
    transformIndexHtml: {
      order: "post",
      handler(_html, { bundle }) {
        const wasm = Object.keys(bundle ?? {}).filter((name) => name.endsWith(".wasm"));
        return wasm.map((name) => ({
          tag: "link",
          attrs: { rel: "preload", as: "fetch", type: "application/wasm", crossorigin: true, href: `./${name}` },
          injectTo: "head" as const,
        }));
      },
    },
  };
}

/** Leaves `name.gz` beside each file that is worth it. */
function packFiles(): Plugin {
  return {
    name: "pack-files",
    async writeBundle({ dir }) {
      if (dir === undefined) return;
      for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile()) continue;
        const path = join(entry.parentPath, entry.name);
        const bytes = await readFile(path);
        if (bytes.length < GZIP_FROM_BYTES) continue;
        await writeFile(`${path}.gz`, gzipSync(bytes, { level: constants.Z_BEST_COMPRESSION }));
      }
    },
  };
}

export default defineConfig({
  base: "./",
  resolve: {
    alias: [
      { find: /^@syncline\/client$/, replacement: fileURLToPath(new URL("../typescript/src/index.ts", import.meta.url)) },
      { find: /^@automerge\/automerge$/, replacement: "@automerge/automerge/slim" },
    ],
  },
  // `npm run dev` shows the sources as they are, with the documents of a server that runs beside it.
  server: { proxy: { "/sync": { target: "ws://127.0.0.1:4400", ws: true } } },
  worker: { format: "es" },
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: {
        index: fileURLToPath(new URL("index.html", import.meta.url)),
        worker: fileURLToPath(new URL("src/worker.ts", import.meta.url)),
      },
      output: { entryFileNames: (chunk) => (chunk.name === "worker" ? WORKER : "assets/[name]-[hash].js") },
    },
  },
  plugins: [preloadWasm(), listFiles(), packFiles()],
});
