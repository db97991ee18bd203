/** A server for the pages of this folder, on this machine only. */
import { createServer } from "vite";

/** The address of the test page, and how to stop serving it. */
export interface Pages {
  readonly url: string;
  close(): Promise<void>;
}

/** Serves the folder's sources as they are; nothing has to be built first. */
export async function servePages(): Promise<Pages> {
  const server = await createServer({
    configFile: false,
    root: import.meta.dirname,
    logLevel: "error",
    appType: "mpa",
    optimizeDeps: { noDiscovery: true },
    server: { host: "127.0.0.1", port: 0, hmr: false, watch: null, fs: { allow: [".."] } },
  });
  await server.listen();
  const url = server.resolvedUrls?.local[0];
  if (url === undefined) throw new Error("the page server has no address");
  return { url: new URL("page.html", url).href, close: () => server.close() };
}
