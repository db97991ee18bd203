/** What a document needs of its surroundings while it handles one event. */
import type { ClientErrorKind } from "../status.js";
import { encodeClient } from "../wire/encode.js";
import type { ClientMessage, Limits } from "../wire/messages.js";
import type { Effect } from "./boundary.js";
import { backoffMs, type ClientLimits } from "./config.js";
import type { Random } from "./random.js";

export class Site {
  readonly now: number;
  /** The server's name for this connection; undefined while apart. */
  readonly session: number | undefined;
  readonly limits: Limits;
  readonly own: ClientLimits;
  readonly random: Random;
  readonly page: string;
  readonly groupMs: number;
  /** Whose token is in use; empty without authentication, null while that is not known. */
  readonly user: string | null;
  /** What to add to `now` for a time as of `Date.now()`. */
  readonly epoch: number;
  readonly nextNumber: () => number;
  readonly out: Effect[];

  constructor(fields: Omit<Site, "send" | "error" | "backoffMs" | "editBytesMax" | "seconds">) {
    this.now = fields.now;
    this.session = fields.session;
    this.limits = fields.limits;
    this.own = fields.own;
    this.random = fields.random;
    this.page = fields.page;
    this.groupMs = fields.groupMs;
    this.user = fields.user;
    this.epoch = fields.epoch;
    this.nextNumber = fields.nextNumber;
    this.out = fields.out;
  }

  /** The time of day, as changes have it. */
  get seconds(): number {
    return Math.max(0, Math.floor((this.epoch + this.now) / 1_000));
  }

  /** The bytes of the changes that one edit may hold. */
  get editBytesMax(): number {
    return this.limits.frame_bytes_max - 64;
  }

  send(message: ClientMessage): void {
    this.out.push({ type: "send", frame: encodeClient(message) });
  }

  error(kind: ClientErrorKind, document: string, text: string, cause?: unknown): void {
    this.out.push({ type: "notify", notice: { type: "error", kind, document, text, cause } });
  }

  backoffMs(attempts: number): number {
    return backoffMs(this.own, attempts, this.random);
  }
}
