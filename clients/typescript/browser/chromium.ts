/**
 * Starts the Chromium that the browser tests run in: Debian's, headless, with a profile of its own that goes when it is closed.
 * It knows no page; whoever launches it opens what it wants to see.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type BrowserContext } from "playwright-core";

/** A browser with one profile: its pages share storage, channels and locks as a person's tabs do. */
export interface Chromium {
  readonly context: BrowserContext;
  /** Ends the browser and removes its profile. */
  close(): Promise<void>;
}

/** Starts a browser. `CHROMIUM` names another executable than Debian's. */
export async function launchChromium(): Promise<Chromium> {
  const profile = await mkdtemp(join(tmpdir(), "syncline-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    headless: true,
    args: FLAGS,
    timeout: LAUNCH_TIMEOUT_MS,
  });
  const close = async (): Promise<void> => {
    await context.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return { context, close };
}

/** A busy machine takes long to start a browser. */
const LAUNCH_TIMEOUT_MS = 120_000;

/** No sandbox, because tests run as root in containers; the others keep it from asking the network for anything by itself. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
