/** automerge-repo-sync-server listens on every interface and has no setting for it; with this preloaded it listens on loopback alone. */
import { Server } from "node:net";

const { listen } = Server.prototype;
Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, port, "127.0.0.1", ...rest);
};
