/**
 * Who else is in the room, and what this client shows of itself. The server says when somebody's state expires ([P3]); this
 * client only repeats its own in time.
 */
import type { PresenceEntry } from "../wire/messages.js";

/** Somebody else, their state still as bytes. */
export interface Shown {
  readonly subject: string;
  readonly name: string | undefined;
  readonly state: Uint8Array;
}

/** One room's presence. */
export class Presence {
  readonly others = new Map<number, Shown>();
  #own: Uint8Array | null = null;
  /** When the own state has to be sent, again or for the first time. */
  #dueAt: number | undefined;
  /** The earliest time of the next send, so that a fast caller stays below the server's rate. */
  #earliestAt = 0;

  set(now: number, state: Uint8Array | null): void {
    if (state === null && this.#own === null) return;
    this.#own = state;
    this.#dueAt = now;
  }

  /** The room is joined: nobody there has our state yet, and theirs comes anew ([P5]). Whether others were shown. */
  joined(now: number): boolean {
    this.#dueAt = this.#own === null ? undefined : now;
    return this.clear();
  }

  /** Forgets the others; whether there were any. */
  clear(): boolean {
    const any = this.others.size > 0;
    this.others.clear();
    return any;
  }

  shown(entries: readonly PresenceEntry[], own: number, othersMax: number): void {
    for (const { session, subject, name, state } of entries) {
      if (session === own) continue;
      if (state === null) this.others.delete(session);
      else if (this.others.has(session) || this.others.size < othersMax) {
        this.others.set(session, { subject, name: name ?? undefined, state: state.slice() });
      }
    }
  }

  get nextWakeup(): number | undefined {
    return this.#dueAt === undefined ? undefined : Math.max(this.#dueAt, this.#earliestAt);
  }

  /** What to send now, if it is time. `intervalMs` is the least time between two sends. */
  due(now: number, ttlMs: number, intervalMs: number): { readonly state: Uint8Array | null } | undefined {
    const at = this.nextWakeup;
    if (at === undefined || at > now) return undefined;
    this.#earliestAt = now + intervalMs;
    this.#dueAt = this.#own === null ? undefined : now + ttlMs / 2;
    return { state: this.#own };
  }
}
