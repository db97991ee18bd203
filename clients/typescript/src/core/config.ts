/** What a core is told when it is made, and its limits: every buffer and queue of the core is named here. */
import type { Random } from "./random.js";

/** Where tokens come from: none, one for always, or the app is asked with `need-token`. */
export type Credentials =
  | { readonly kind: "none" }
  | { readonly kind: "fixed"; readonly token: string }
  | { readonly kind: "asked" };

/** How a core behaves. `seed` is its only randomness. */
export interface Config {
  /** Name and version of the software, sent in `hello`. */
  readonly name: string;
  readonly credentials: Credentials;
  /** At least 12 bytes, random for every page load in the world. */
  readonly seed: Uint8Array;
  /** Names this page among those of its origin, and its queue. */
  readonly page: string;
  /** Local changes are gathered so long before they are sent. */
  readonly groupMs: number;
  readonly limits: ClientLimits;
}

/** What one client holds and how long it waits. Sizes in bytes, times in milliseconds. */
export interface ClientLimits {
  /** Bytes of one document on its way in, inflated. Above it the document is refused with `limit`. */
  readonly loadingBytesMax: number;
  /** Bytes of diffs that wait to be applied. Above it they are applied at once. */
  readonly waitingBytesMax: number;
  /** The least time between two applications of diffs: an animation frame. */
  readonly applyPauseMs: number;
  /** The pause after an application, as a multiple of the time that it took. */
  readonly applyPauseFactor: number;
  /** The longest such pause. */
  readonly applyPauseMaxMs: number;
  /** Unacknowledged changes of one document. Above it `change` refuses. */
  readonly pendingChangesMax: number;
  /** Bytes of the unacknowledged changes of one document. Above it `change` refuses. */
  readonly pendingBytesMax: number;
  /** Changes of other tabs that wait for what they depend on. Above it the oldest are let go: the server brings them. */
  readonly earlyChangesMax: number;
  /** Drafts of one document. Above it `change` refuses until the app has dropped some. */
  readonly draftsMax: number;
  /** Edits of one document that wait for their answer. */
  readonly editsInFlightMax: number;
  /** Others whose presence is held per document. Above it newcomers are not shown. */
  readonly presencesMax: number;
  /** How long what came is gathered before the stored replica is written. */
  readonly keepPauseMs: number;
  /** Bytes of chunks that wait to be stored. Above it they are written at once. */
  readonly unkeptBytesMax: number;
  /** The same where the batch before is stuck. Above it they are let go, and the document is stored whole. */
  readonly stuckBytesMax: number;
  /** Stored chunks behind a snapshot after which the next one is written. */
  readonly chunksMax: number;
  readonly backoffFirstMs: number;
  readonly backoffMaxMs: number;
  /** The longest `retry` of a server that is believed. */
  readonly retryMaxMs: number;
  /** The longest time from `connect` to `welcome`. */
  readonly connectTimeoutMs: number;
  /** The longest time that the app's token function may take. */
  readonly tokenTimeoutMs: number;
  /** How long before its end a token is renewed; a quarter of the remaining time, if that is less. */
  readonly renewalMarginMs: number;
}

export const defaultLimits: ClientLimits = {
  loadingBytesMax: 128 << 20,
  waitingBytesMax: 4 << 20,
  applyPauseMs: 16,
  applyPauseFactor: 4,
  applyPauseMaxMs: 2_000,
  pendingChangesMax: 100_000,
  pendingBytesMax: 64 << 20,
  earlyChangesMax: 10_000,
  draftsMax: 64,
  editsInFlightMax: 16,
  presencesMax: 10_000,
  keepPauseMs: 500,
  unkeptBytesMax: 256 << 10,
  stuckBytesMax: 4 << 20,
  chunksMax: 64,
  backoffFirstMs: 100,
  backoffMaxMs: 30_000,
  retryMaxMs: 300_000,
  connectTimeoutMs: 10_000,
  tokenTimeoutMs: 30_000,
  renewalMarginMs: 60_000,
};

/** The wait before attempt `attempts`, counted from 1 ([C5]). */
export function backoffMs(limits: ClientLimits, attempts: number, random: Random): number {
  const doublings = Math.min(Math.max(attempts - 1, 0), 20);
  return random.jitter(Math.min(limits.backoffFirstMs * 2 ** doublings, limits.backoffMaxMs));
}
