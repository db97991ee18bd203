/** What only Node has: everything that `@syncline/client/node` exports. */
export { fileStorage } from "./storage.js";
export { nodeTransport, type NodeTransportOptions } from "./transport.js";
