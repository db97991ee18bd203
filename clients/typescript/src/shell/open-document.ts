/** One document that is open in this client, whatever number of handles there are: between the core, the storage and the pages. */
import type { Notice } from "../core/boundary.js";
import { nothingKept, type Kept } from "../core/kept.js";
import type { Shell } from "./shell.js";
import { Pages } from "./pages.js";

/** What a handle hears of its document, and that the connection stands otherwise. */
export type Listener = (notice: Extract<Notice, { readonly document: string }> | { readonly type: "connection" | "closed" }) => void;

export class OpenDocument {
  readonly id: string;
  readonly initial: Uint8Array | undefined;
  readonly #shell: Shell;
  readonly #listeners = new Set<Listener>();
  #pages: Pages | undefined;
  /** Whether the core has it. */
  isOpen = false;
  /** Resolves when the core has it. */
  readonly opened: Promise<void>;
  #closing: Promise<void> | undefined;
  /** Nobody listens any more, but the server lacks changes. */
  #lingers = false;

  /** `after` is what has to end before: the same document on its way out. */
  constructor(shell: Shell, id: string, initial: Uint8Array | undefined, after: Promise<void> | undefined) {
    this.#shell = shell;
    this.id = id;
    this.initial = initial;
    this.opened = this.#open(after);
  }

  get closing(): Promise<void> | undefined {
    return this.#closing;
  }

  get lingers(): boolean {
    return this.#lingers && this.#closing === undefined;
  }

  listen(listener: Listener): void {
    this.#listeners.add(listener);
    this.#lingers = false;
  }

  tell(notice: Parameters<Listener>[0]): void {
    for (const listener of [...this.#listeners]) listener(notice);
    if (this.lingers && notice.type === "document" && notice.state.unsynced === 0) void this.end();
  }

  post(message: Parameters<Pages["post"]>[0]): void {
    this.#pages?.post(message);
  }

  async adoptAll(): Promise<void> {
    await this.opened;
    await this.#pages?.adoptAll();
  }

  /**
   * The last one who listens lets go of the document once all is stored. As long as the server lacks some of it, it goes on
   * without anybody: else that would stay here until the document is opened again.
   */
  async unlisten(listener: Listener): Promise<void> {
    this.#listeners.delete(listener);
    if (this.#listeners.size > 0) return;
    await this.opened;
    await this.#store();
    if (this.#listeners.size > 0) return;
    this.#lingers = (this.#shell.core.state(this.id)?.unsynced ?? 0) > 0;
    if (!this.lingers) return this.end();
    this.#shell.step({ type: "presence", document: this.id, state: null });
    this.#shell.lingers();
  }

  /** Lets go of the document, whoever listens. */
  async end(): Promise<void> {
    this.#closing ??= this.#close();
    await this.#closing;
  }

  async #open(after: Promise<void> | undefined): Promise<void> {
    const shell = this.#shell;
    await after;
    await shell.started;
    const { id: document } = this;
    this.#pages = new Pages({
      document,
      page: shell.page,
      scope: shell.scope,
      storage: shell.storage,
      tabs: shell.tabs,
      clock: shell.clock,
      user: () => shell.core.user,
      events: {
        heard: (message) => shell.step({ type: "sibling", document, message }),
        adopted: (page, left) => shell.step({ type: "adopted", document, page, left }),
        appointed: (stored) => shell.step({ type: "keeper", document, stored }),
        held: (count) => shell.held(document, count),
        failed: (error) => shell.storageFailed(document, error),
      },
    });
    let kept: Kept = nothingKept;
    try {
      kept = await this.#pages.open();
    } catch (error) {
      shell.storageFailed(document, error);
    }
    if (this.#closing !== undefined) return;
    this.isOpen = true;
    shell.step({ type: "open", document, kept, initial: this.initial });
    this.#pages.ready();
  }

  async #close(): Promise<void> {
    await this.opened;
    await this.#store();
    if (this.isOpen) {
      this.#shell.step({ type: "close", document: this.id });
      this.isOpen = false;
    }
    this.#pages?.close();
    this.#shell.forget(this);
    this.tell({ type: "closed" });
  }

  async #store(): Promise<void> {
    // A second time, since what became durable meanwhile leaves the queue.
    for (let round = 0; round < 2 && this.isOpen; round += 1) {
      this.#shell.step({ type: "flush", document: this.id });
      await this.#shell.writer.settled();
    }
  }
}
