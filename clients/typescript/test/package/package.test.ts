/**
 * The package as somebody has it who installs it: packed from a copy of the sources without anything built, put beside what it
 * depends on but for `ws`, which is optional, imported by its names, and read by a strict compiler.
 */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";

const PACKAGE = fileURLToPath(new URL("../..", import.meta.url));
const MODULES = join(PACKAGE, "../node_modules");
const LICENCES = ["LICENSE", "LICENSE-APACHE"];
const PARTS = ["src", "package.json", "tsconfig.json", "tsconfig.build.json", "README.md", "REACT.md", ...LICENCES];
/** What an app has in its `node_modules` beside the package. */
const BESIDE = ["@automerge/automerge", "fflate", "react", "@types/react", "csstype"];
const STEP_MS_MAX = 120_000;

const PROGRAM = `
import { Client, memoryStorage } from "@syncline/client";
import { fileStorage, nodeTransport } from "@syncline/client/node";
import { SyncProvider } from "@syncline/client/react";

const storage = fileStorage("replicas");
await storage.write([{ put: "key", value: Uint8Array.of(7) }]);
console.log(await storage.get("key"));
await storage.close();
try {
  nodeTransport();
} catch (error) {
  console.log(error.message);
}
console.log([Client, SyncProvider, memoryStorage].map((each) => typeof each).join());
`;

const TYPED = `
import { Client, type DocHandle, type Safety } from "@syncline/client";
import { fileStorage, nodeTransport, type NodeTransportOptions } from "@syncline/client/node";
import { useDocument, type DocumentView } from "@syncline/client/react";

const options: NodeTransportOptions = { headers: { cookie: "a=b" }, maxPayload: 1024 };
const client = new Client({ url: "ws://localhost", storage: fileStorage("replicas"), transport: nodeTransport(options) });
export const note: DocHandle<{ text: string }> = client.open("note", { initial: { text: "" } });
export const safety: Safety = note.safety;
export const useText = (id: string): string | undefined => useDocument<{ text: string }>(id)[0]?.text;
export type View = DocumentView<{ text: string }>;
`;

const STRICT = {
  compilerOptions: { strict: true, noEmit: true, module: "NodeNext", target: "ES2022", lib: ["ESNext", "DOM"], types: [], skipLibCheck: false },
  files: ["typed.ts"],
};

let place: string;
let app: string;

async function run(command: string, args: readonly string[], cwd: string): Promise<string> {
  // What npm tells its scripts is of the workspace that is tested, not of the one that is packed.
  const own = Object.entries(process.env).filter(([name]) => !name.toLowerCase().startsWith("npm_"));
  const env = { ...Object.fromEntries(own), npm_config_offline: "true", npm_config_update_notifier: "false", npm_config_cache: join(place, "cache") };
  try {
    return (await promisify(execFile)(command, args, { cwd, env, timeout: STEP_MS_MAX })).stdout;
  } catch (error) {
    const { stdout, stderr } = error as { readonly stdout?: string; readonly stderr?: string };
    throw new Error(`${command} ${args.join(" ")} failed: ${stdout ?? ""}${stderr ?? ""}`, { cause: error });
  }
}

beforeAll(async () => {
  place = await mkdtemp(join(tmpdir(), "syncline-package-"));
  const source = join(place, "source");
  for (const part of PARTS) await cp(join(PACKAGE, part), join(source, part), { recursive: true });
  await symlink(MODULES, join(source, "node_modules"));
  await run("npm", ["pack", "--pack-destination", place], source);
  const packed = (await readdir(place)).find((name) => name.endsWith(".tgz"));
  if (packed === undefined) throw new Error("npm has packed nothing");

  app = join(place, "app");
  const installed = join(app, "node_modules/@syncline/client");
  await mkdir(installed, { recursive: true });
  await run("tar", ["-xzf", join(place, packed), "--strip-components=1", "-C", installed], place);
  for (const name of BESIDE) {
    await mkdir(dirname(join(app, "node_modules", name)), { recursive: true });
    await symlink(join(MODULES, name), join(app, "node_modules", name));
  }
  const files = { "package.json": '{"type":"module"}', "program.js": PROGRAM, "typed.ts": TYPED, "tsconfig.json": JSON.stringify(STRICT) };
  for (const [name, text] of Object.entries(files)) await writeFile(join(app, name), text);
});
afterAll(async () => {
  await rm(place, { recursive: true, force: true, maxRetries: 5 });
});

test("the package holds what was built from its sources, what explains it, and its licences", async () => {
  const installed = join(app, "node_modules/@syncline/client");
  const top = await readdir(installed);
  expect(top.sort()).toEqual([...LICENCES, "README.md", "REACT.md", "dist", "package.json"].sort());
  for (const name of LICENCES) {
    expect(await readFile(join(installed, name), "utf8"), name).toBe(await readFile(join(PACKAGE, "../..", name), "utf8"));
  }
});

test("its names lead to modules that run without the optional ws", async () => {
  const said = await run(process.execPath, ["program.js"], app);
  expect(said.trim().split("\n")).toEqual([
    "Uint8Array(1) [ 7 ]",
    "nodeTransport() needs the package ws: npm install ws",
    "function,function,function",
  ]);
});

test("its types need no other types than those of what it depends on", async () => {
  await run(join(MODULES, ".bin/tsc"), ["-p", "."], app);
});
