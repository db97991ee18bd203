/** Hocuspocus as its documentation sets it up: all defaults, and the SQLite extension. `node hocuspocus-server.mjs PORT DATABASE`. */
import { SQLite } from "@hocuspocus/extension-sqlite";
import { Server } from "@hocuspocus/server";

const [port, database] = process.argv.slice(2);
await new Server({ address: "127.0.0.1", port: Number(port), quiet: true, extensions: [new SQLite({ database })] }).listen();
