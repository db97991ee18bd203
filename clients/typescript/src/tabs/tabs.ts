/**
 * What the pages of one origin share: channels on which they hear each other, and locks that one of them holds. A page that is
 * gone, crashed ones included, lets go of its locks by itself. Nothing here knows documents.
 */

/** A lock that is held. */
export interface Lock {
  /** Lets another page have it. Calling it again does nothing. */
  release(): void;
}

/** One page's end of a channel. */
export interface Channel {
  /** Tells all others that listen at this moment. The message must be structured-cloneable. */
  post(message: unknown): void;
  /** Hears and tells nothing more. */
  close(): void;
}

/** What the pages of one origin share. */
export interface Tabs {
  /** Hears what is posted to `name` elsewhere, on this page or another; never its own. Messages come in the order posted. */
  channel(name: string, hear: (message: unknown) => void): Channel;
  /**
   * Resolves when this page holds `name` alone; another page gets it when `release` is called or this page is gone. Rejects with
   * the signal's reason when the signal aborts before.
   */
  lock(name: string, signal?: AbortSignal): Promise<Lock>;
  /** The same, but undefined at once when it is held already, by this page or another. */
  tryLock(name: string): Promise<Lock | undefined>;
}
