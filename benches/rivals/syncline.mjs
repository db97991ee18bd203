/** Syncline, with its own client as it is built from `clients/typescript`: in memory, so that nothing but the server remembers. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { execFileSync } from "node:child_process";
import { Client } from "../../clients/typescript/dist/index.js";
import { nodeTransport } from "../../clients/typescript/dist/node/index.js";

const BINARY = process.env.SYNCLINE_BIN ?? new URL("../../target/trials/syncline", import.meta.url).pathname;
const DOCUMENT = "compare/durability";

export const name = "Syncline";

export function versions() {
  const client = JSON.parse(readFileSync(new URL("../../clients/typescript/package.json", import.meta.url), "utf8"));
  return [execFileSync(BINARY, ["--version"], { encoding: "utf8" }).trim(), `${client.name} ${client.version}`];
}

export function command(port, directory) {
  return { file: BINARY, args: ["serve", "--dev", "--listen", `127.0.0.1:${port}`, "--data", join(directory, "data")] };
}

export async function open(port, _document, seen) {
  const client = new Client({ url: `ws://127.0.0.1:${port}`, transport: nodeTransport() });
  const handle = client.open(DOCUMENT, { initial: { edits: {} } });
  handle.on("change", ({ patches, origin }) => {
    if (origin === "local") return;
    for (const { path } of patches) if (path[0] === "edits" && path.length > 1) seen(String(path[1]));
  });
  await handle.whenReady();
  await new Promise((resolve) => {
    const look = () => handle.status.state === "live" && resolve();
    handle.on("status", look);
    look();
  });
  return {
    document: DOCUMENT,
    write: (key) => handle.change((doc) => void (doc.edits[key] = 1)),
    keys: () => Object.keys(handle.doc().edits),
    close: () => client.close(),
  };
}
