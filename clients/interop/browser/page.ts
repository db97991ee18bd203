/** Unmodified automerge-repo clients of two ages in a page, for the tests to drive. */
import * as Automerge from "@automerge/automerge";
import { Presence, Repo, type AutomergeUrl, type DocHandle, type PeerId } from "@automerge/automerge-repo";
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket";
import { Repo as OlderRepo } from "automerge-repo-older";
import { WebSocketClientAdapter as OlderAdapter } from "automerge-repo-network-websocket-older";

interface Notes extends Record<string, unknown> {
  items: Record<string, string>;
  text?: string;
}

/** How soon a client that lost its server tries again: their default. Chromium keeps sockets waiting that come faster. */
const RETRY_MS = 5_000;
/** What stands for never. */
const NEVER_MS = 1_000_000;

/** What a test may ask of a page. */
export class Tab {
  #repo: Repo | undefined;
  #handles: DocHandle<Notes>[] = [];
  #presence: Presence<{ cursor: number }> | undefined;
  #heard: unknown[] = [];
  #isConnected = true;

  open(version: string, server: string): void {
    this.#repo =
      version === "2.0.8"
        ? (new OlderRepo({ network: [new OlderAdapter(server, RETRY_MS)] }) as unknown as Repo)
        : new Repo({ network: [new WebSocketClientAdapter(server, RETRY_MS)] });
  }

  /** Goes by this peer id; once it has lost its server it does not come back, if it is told so. */
  openAs(peerId: string, server: string, comesBack: boolean): void {
    const adapter = new WebSocketClientAdapter(server, comesBack ? RETRY_MS : NEVER_MS);
    this.#repo = new Repo({ network: [adapter], peerId: peerId as PeerId });
    this.#repo.networkSubsystem.on("peer-disconnected", () => (this.#isConnected = false));
  }

  isConnected(): boolean {
    return this.#isConnected;
  }

  /** Brings a document with a text of so many thousand characters along, a thousand in each change. */
  import(thousands: number): AutomergeUrl {
    let notes = Automerge.from<Notes>({ items: {}, text: "" });
    for (let number = 0; number < thousands; number += 1) {
      notes = Automerge.change(notes, (draft) => Automerge.splice(draft, ["text"], number * 1_000, 0, "x".repeat(1_000)));
    }
    const handle = this.#theRepo.import<Notes>(Automerge.save(notes));
    this.#take(handle);
    return handle.url;
  }

  /** How long the text is. */
  length(): number {
    return this.#handles[0]?.doc().text?.length ?? 0;
  }

  /** Writes one item after another for a while; says how many. */
  async keepWriting(name: string, ms: number): Promise<number> {
    const until = performance.now() + ms;
    let number = 0;
    for (; performance.now() < until; number += 1) {
      this.put(`${name} ${number}`, "written");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return number;
  }

  /** Makes documents; the first one is what the rest is about. */
  create(count: number): AutomergeUrl[] {
    const made = Array.from({ length: count }, () => this.#theRepo.create<Notes>({ items: {} }));
    made.forEach((handle) => this.#take(handle));
    return made.map((handle) => handle.url);
  }

  /** Asks for documents once; says why it was in vain. */
  async find(urls: AutomergeUrl[]): Promise<string> {
    try {
      const found = await Promise.all(urls.map((url) => this.#theRepo.find<Notes>(url)));
      found.forEach((handle) => this.#take(handle));
      return "found";
    } catch (error) {
      return String(error);
    }
  }

  put(key: string, value: string): void {
    for (const handle of this.#handles) handle.change((notes) => (notes.items[key] = value));
  }

  /** What stands in all documents alike, or `undefined`. */
  items(): Record<string, string> | undefined {
    const sorted = this.#handles.map((handle) => {
      const { items } = handle.doc();
      return Object.fromEntries(Object.keys(items).sort().map((key) => [key, items[key] ?? ""]));
    });
    const [first] = sorted;
    return sorted.every((one) => JSON.stringify(one) === JSON.stringify(first)) ? first : undefined;
  }

  broadcast(message: unknown): void {
    this.#handles[0]?.broadcast(message);
  }

  heard(): unknown[] {
    return this.#heard;
  }

  show(cursor: number): void {
    const handle = this.#handles[0];
    if (handle === undefined) throw new Error("no document is open");
    if (this.#presence === undefined) {
      this.#presence = new Presence({ handle });
      this.#presence.start({ initialState: { cursor } });
    } else {
      this.#presence.broadcast("cursor", cursor);
    }
  }

  hide(): void {
    this.#presence?.stop();
  }

  seen(): unknown[] {
    return Object.values(this.#presence?.getPeerStates().value ?? {}).map((peer) => peer.value);
  }

  get #theRepo(): Repo {
    if (this.#repo === undefined) throw new Error("open() comes first");
    return this.#repo;
  }

  #take(handle: DocHandle<Notes>): void {
    this.#handles.push(handle);
    handle.on("ephemeral-message", ({ message }) => this.#heard.push(message));
  }
}

declare global {
  var tab: Tab;
}

globalThis.tab = new Tab();
