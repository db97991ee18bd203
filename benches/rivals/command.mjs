/** Prints how a rival is started, and what was installed of it, for `syncline-bench compare`: `node command.mjs NAME PORT DIRECTORY`. */
import { installed } from "./installed.mjs";

const SYNC_SERVER = "@automerge/automerge-repo-sync-server";
/** The sync server brings older packages than its clients use. */
const OWN = `${SYNC_SERVER}/node_modules/@automerge`;
const RIVALS = {
  hocuspocus: ["./hocuspocus.mjs", "@hocuspocus/server", "@hocuspocus/extension-sqlite", "yjs"],
  "y-websocket": ["./y-websocket-server.mjs", "@y/websocket-server", "y-leveldb"],
  "automerge-repo": ["./automerge-repo-sync-server.mjs", SYNC_SERVER, `${OWN}/automerge-repo`, `${OWN}/automerge`],
};

const [name, port, directory] = process.argv.slice(2);
const [file, ...packages] = RIVALS[name];
const { command } = await import(file);
const versions = installed(...packages).map((version) => version.replace(/^.*node_modules\//, ""));
console.log(JSON.stringify({ ...command(Number(port), directory), versions }));
// Some of the clients' packages keep the process alive.
process.exit(0);
