/** Unmodified automerge-repo clients of two ages, and how to wait for what they see. */
import { Repo, type DocHandle, type RepoConfig } from "@automerge/automerge-repo";
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket";
import { Repo as OlderRepo } from "automerge-repo-older";
import { WebSocketClientAdapter as OlderAdapter } from "automerge-repo-network-websocket-older";

/** What the tests write into documents. */
export interface Notes {
  title?: string;
  items: Record<string, string>;
  text?: string;
}

/** How soon a client that lost its server tries again. */
const RETRY_MS = 300;
/** Longer than any event should take on a machine ten times slower. */
const PATIENCE_MS = 200_000;

/** Client versions by name. */
export const VERSIONS = ["2.5.6", "2.0.8"] as const;
export type Version = (typeof VERSIONS)[number];

/** Counts what comes from the server. */
export class CountingAdapter extends WebSocketClientAdapter {
  bytesIn = 0;

  override receiveMessage(bytes: Uint8Array): void {
    this.bytesIn += bytes.byteLength;
    super.receiveMessage(bytes);
  }
}

export class Peers {
  #repos: Repo[] = [];

  /** A client of the current version. */
  open(url: string, config: RepoConfig = {}, retryMs = RETRY_MS): Repo {
    const repo = new Repo({ network: [new WebSocketClientAdapter(url, retryMs)], ...config });
    this.#repos.push(repo);
    return repo;
  }

  /** A client of the current version, over this adapter. */
  openOn(adapter: WebSocketClientAdapter): Repo {
    const repo = new Repo({ network: [adapter] });
    this.#repos.push(repo);
    return repo;
  }

  /** A client of one version. The older one has the same interface as far as the tests go. */
  openVersion(version: Version, url: string): Repo {
    if (version === "2.5.6") return this.open(url);
    const repo = new OlderRepo({ network: [new OlderAdapter(url, RETRY_MS)] }) as unknown as Repo;
    this.#repos.push(repo);
    return repo;
  }

  /** Disconnects all. */
  async close(): Promise<void> {
    for (const repo of this.#repos) repo.networkSubsystem.disconnect();
    this.#repos = [];
  }
}

/** Waits until a condition holds. */
export async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Finds a document, again and again until the server has it. */
export async function findSoon<T>(repo: Repo, url: DocHandle<T>["url"]): Promise<DocHandle<T>> {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await repo.find<T>(url);
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
