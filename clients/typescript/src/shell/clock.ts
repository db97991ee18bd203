/** The only reader of clocks and the only one who sets timers. */

/** A clock. Tests have their own. */
export interface Clock {
  /** Milliseconds that never go back, whatever happens to the time of day. */
  now(): number;
  /** The time of day, as `Date.now()`. */
  wall(): number;
  /** Calls `done` after `ms`; the function that comes back prevents that. */
  after(ms: number, done: () => void): () => void;
}

/** A timer's longest wait; longer ones are set anew. */
const TIMER_MAX_MS = 0x7fffffff;

export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  after: (ms, done) => {
    const timer = setTimeout(done, Math.min(Math.max(ms, 0), TIMER_MAX_MS));
    return () => clearTimeout(timer);
  },
};
