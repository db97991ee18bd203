/** What only Node has: `@syncline/client/node`. */
export { nodeTransport } from "./transport.js";
