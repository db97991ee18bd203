/** What the package costs a page: bundled, minified and gzipped, without Automerge (a peer dependency) and its WASM. */
import { build } from "esbuild";
import { gzipSync } from "node:zlib";

const entries = { "@syncline/client": "src/index.ts", "@syncline/client/react": "src/react/index.ts" };

for (const [name, entry] of Object.entries(entries)) {
  const options = { entryPoints: [entry], bundle: true, minify: true, format: "esm", platform: "browser", target: "es2022", write: false };
  const built = await build({ ...options, external: ["@automerge/automerge", "react"], logLevel: "silent" }).catch(() => undefined);
  if (built === undefined) continue;
  const bytes = built.outputFiles[0].contents;
  console.log(`${name}: ${bytes.length} bytes minified, ${gzipSync(bytes, { level: 9 }).length} gzipped`);
}
