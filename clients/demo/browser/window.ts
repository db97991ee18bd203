/**
 * A window on the page, in the words of somebody who uses it. Waiting is for what is to be seen, with a limit for a machine that
 * is ten times slower than a quiet one.
 */
import type { BrowserContext, Locator, Page } from "playwright-core";
import type { Server } from "./server";

/** No condition takes longer. */
export const PATIENCE_MS = 120_000;

/** What the page leaves for the console. */
interface Console {
  readonly syncline: {
    readonly client: { readonly session: number | undefined; readonly figures: { readonly bytesIn: number; readonly bytesOut: number } };
    readonly handle: {
      readonly documentId: string;
      readonly isReady: boolean;
      readonly safety: string;
      readonly unsyncedChanges: number;
      doc(): { readonly text: string; readonly cards: Readonly<Record<string, { readonly text: string }>> };
      heads(): string[];
    };
  };
}

/** One window. */
export class Window {
  readonly page: Page;

  private constructor(page: Page) {
    this.page = page;
  }

  /** Opens a document and waits until it can be edited. */
  static async open(context: BrowserContext, server: Server, documentId: string, token?: string): Promise<Window> {
    const window = await Window.visit(context, server, documentId, token);
    await window.ready();
    return window;
  }

  /** Opens the page and waits for nothing. */
  static async visit(context: BrowserContext, server: Server, documentId: string, token?: string): Promise<Window> {
    return Window.take(await context.newPage(), server, documentId, token);
  }

  /** Opens the page in a tab that is there already. */
  static async take(page: Page, server: Server, documentId: string, token?: string): Promise<Window> {
    page.setDefaultTimeout(PATIENCE_MS);
    page.setDefaultNavigationTimeout(PATIENCE_MS);
    await page.goto(`${server.url}/${token === undefined ? "" : `?token=${token}`}#${documentId}`);
    return new Window(page);
  }

  /** The editor. */
  get editor(): Locator {
    return this.page.getByRole("textbox", { name: "Shared text" });
  }

  get light(): Locator {
    return this.page.locator(".light");
  }

  notice(name: string): Locator {
    return this.page.locator(`[data-notice="${name}"]`);
  }

  /** The cards' texts, first to last. */
  cards(): Promise<string[]> {
    return this.page.locator(".card textarea").evaluateAll((fields) => fields.map((field) => (field as HTMLTextAreaElement).value));
  }

  async ready(): Promise<void> {
    await this.editor.waitFor();
  }

  /** How long after its load had begun the document could be edited. */
  editableAfterMs(): Promise<number> {
    return this.page.evaluate(() => performance.getEntriesByName("editable").at(-1)?.startTime ?? Infinity);
  }

  /** Types where the caret is put first. */
  async type(text: string, where: "start" | "end", delay = 0): Promise<void> {
    await this.editor.focus();
    await this.page.keyboard.press(where === "start" ? "Control+Home" : "Control+End");
    await this.page.keyboard.type(text, { delay });
  }

  /** What the editor shows; the names at others' carets are not in it. Only for texts that fit into the window. */
  shown(): Promise<string> {
    return this.editor.evaluate((content) => {
      const lines = [...content.querySelectorAll(".cm-line")].map((line) => {
        const copy = line.cloneNode(true) as HTMLElement;
        for (const other of copy.querySelectorAll(".cm-other-caret, .cm-placeholder")) other.remove();
        return copy.textContent ?? "";
      });
      return lines.join("\n");
    });
  }

  /** The text that the document holds. */
  text(): Promise<string> {
    return this.page.evaluate(() => (globalThis as unknown as Console).syncline.handle.doc().text);
  }

  figures(): Promise<{ readonly bytesIn: number; readonly bytesOut: number }> {
    return this.page.evaluate(() => ({ ...(globalThis as unknown as Console).syncline.client.figures }));
  }

  /** The server's name for the connection. */
  session(): Promise<number | undefined> {
    return this.page.evaluate(() => (globalThis as unknown as Console).syncline.client.session);
  }

  unsynced(): Promise<number> {
    return this.page.evaluate(() => (globalThis as unknown as Console).syncline.handle.unsyncedChanges);
  }

  /** Waits until the document holds this text. */
  async holds(text: string): Promise<void> {
    await this.#wait((now) => now === text, text);
  }

  /** Waits until the document holds this text somewhere. */
  async contains(part: string): Promise<void> {
    await this.#wait((now) => now.includes(part), part);
  }

  async #wait(isThere: (text: string) => boolean, wanted: string): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      const text = await this.page.evaluate(() => {
        const { syncline } = globalThis as unknown as Partial<Console>;
        return syncline?.handle.isReady === true ? syncline.handle.doc().text : undefined;
      });
      if (text !== undefined && isThere(text)) return;
      if (Date.now() > deadline) {
        throw new Error(`waited in vain for ${JSON.stringify(wanted)}; the document holds ${JSON.stringify(text)}`);
      }
      await this.page.waitForTimeout(50);
    }
  }

  /** Waits until every change is on the server's disk. */
  async saved(): Promise<void> {
    await this.page.locator('.light[data-safety="durable"]').waitFor();
    await this.page.waitForFunction(() => (globalThis as unknown as Console).syncline.handle.unsyncedChanges === 0);
  }

  /** Waits until the page says that every change is in this browser's storage. */
  async kept(): Promise<void> {
    await this.page.locator('.light[data-safety="local"]').waitFor();
  }

  async switchNetwork(to: "on" | "off"): Promise<void> {
    const button = this.page.getByRole("switch", { name: "Online" });
    if ((await button.getAttribute("aria-checked")) !== String(to === "on")) await button.click();
  }
}
