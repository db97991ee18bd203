/** The connection: when to connect, with which token, when to give up. Knows nothing of documents. */
import type { ConnectionStatus } from "../status.js";
import { encodeClient } from "../wire/encode.js";
import { VERSION, type Limits, type Welcome } from "../wire/messages.js";
import type { Effect, Token } from "./boundary.js";
import { backoffMs, type Config } from "./config.js";
import type { Random } from "./random.js";

/** The server's limits where it announces none ([L1], [M5]). */
export const defaultServerLimits: Limits = {
  frame_bytes_max: 1 << 20,
  edits_per_second: 100,
  presence_per_second: 30,
  presence_bytes_max: 4_096,
  presence_ttl_ms: 60_000,
  ops_per_change_max: 200_000,
  documents_per_session_max: 64,
  idle_timeout_ms: 45_000,
};

/** An admitted connection. */
export interface Up {
  readonly state: "up";
  readonly session: number;
  readonly limits: Limits;
  /** The server goes away: nothing new is sent, and this is when it should have gone. */
  goneAt: number | undefined;
  heardAt: number;
  /** A sign of life was asked for since the server was heard last. */
  probed: boolean;
}

type Link =
  | { readonly state: "idle" }
  | { readonly state: "awaiting-token"; readonly deadline: number }
  | { readonly state: "connecting"; readonly deadline: number }
  | { readonly state: "greeting"; readonly deadline: number }
  | Up
  | { readonly state: "waiting"; readonly until: number }
  | { readonly state: "rejected"; readonly code: number; readonly text: string };

/** The connection and what outlives it. */
export class Connection {
  #link: Link = { state: "idle" };
  #token: Token | undefined;
  /** When to ask for the next token, while connected. */
  #renewAt: number | undefined;
  /** The app was asked for a token while connected. */
  #renewing = false;
  /** A 4401 has been answered with a new token already ([C4]). */
  #tokenRetried = false;
  #attempts = 0;
  #retryAfterMs: number | undefined;
  /** What the server said before it closed. */
  #lastError: { readonly code: number; readonly text: string } | undefined;
  readonly #config: Config;
  readonly #random: Random;

  constructor(config: Config, random: Random) {
    this.#config = config;
    this.#random = random;
  }

  get up(): Up | undefined {
    return this.#link.state === "up" ? this.#link : undefined;
  }

  /** Whether messages can be sent. */
  get isOpen(): boolean {
    return this.#link.state === "greeting" || this.#link.state === "up";
  }

  /** Whether an attempt has failed or none is wanted: the app may go on with what it has. */
  get isApart(): boolean {
    return this.#link.state === "idle" || this.#link.state === "waiting" || this.#link.state === "rejected";
  }

  get status(): ConnectionStatus {
    switch (this.#link.state) {
      case "idle":
        return { state: "offline" };
      case "awaiting-token":
      case "connecting":
      case "greeting":
        return { state: "connecting" };
      case "up":
        return { state: "connected" };
      case "waiting":
        return { state: "offline", retryAt: this.#link.until };
      case "rejected":
        return { state: "rejected", code: this.#link.code, reason: this.#link.text };
    }
  }

  start(now: number, out: Effect[]): void {
    if (this.#link.state === "waiting") return this.#connect(now, out);
    if (this.#link.state !== "idle" && this.#link.state !== "rejected") return;
    this.#attempts = 0;
    this.#tokenRetried = false;
    this.#connect(now, out);
  }

  stop(out: Effect[]): void {
    if (this.#isAlive()) out.push({ type: "disconnect" });
    this.#link = { state: "idle" };
  }

  /** The app has answered. Whether a new token went out on the live connection. */
  token(now: number, token: Token, out: Effect[]): boolean {
    const renewing = this.#renewing;
    this.#renewing = false;
    this.#token = token;
    this.#renewAt = token.expiresAt === undefined ? undefined : token.expiresAt - this.#margin(now, token.expiresAt);
    if (this.#link.state === "awaiting-token") {
      this.#link = { state: "connecting", deadline: now + this.#config.limits.connectTimeoutMs };
      out.push({ type: "connect" });
      return false;
    }
    if (!renewing || !this.isOpen) return false;
    out.push({ type: "send", frame: encodeClient({ type: "auth", token: token.text }) });
    return true;
  }

  tokenFailed(now: number): void {
    this.#renewing = false;
    if (this.#link.state === "awaiting-token") this.#backOff(now);
    else this.#renewAt = now + Math.min(this.#config.limits.backoffMaxMs, 5_000);
  }

  /** The socket is open: says `hello`. */
  connected(out: Effect[]): void {
    if (this.#link.state !== "connecting") return;
    this.#link = { state: "greeting", deadline: this.#link.deadline };
    const { credentials, name } = this.#config;
    const asked = credentials.kind === "asked" ? this.#token?.text : undefined;
    const token = credentials.kind === "fixed" ? credentials.token : (asked ?? null);
    const capabilities = ["deflate", "bundle"];
    out.push({ type: "send", frame: encodeClient({ type: "hello", version: VERSION, token, client: name, capabilities }) });
  }

  welcomed(now: number, welcome: Welcome): void {
    if (this.#link.state !== "greeting") return;
    this.#attempts = 0;
    this.#tokenRetried = false;
    this.#lastError = undefined;
    this.#retryAfterMs = undefined;
    const announced = Object.entries(welcome.limits).filter(([, limit]) => limit > 0);
    const limits = { ...defaultServerLimits, ...Object.fromEntries(announced) } as Limits;
    this.#link = { state: "up", session: welcome.session, limits, goneAt: undefined, heardAt: now, probed: false };
  }

  heard(now: number): void {
    if (this.#link.state !== "up") return;
    this.#link.heardAt = now;
    this.#link.probed = false;
  }

  retry(now: number, afterMs: number): void {
    this.#retryAfterMs = Math.min(afterMs, this.#config.limits.retryMaxMs);
    if (this.#link.state === "up") this.#link.goneAt = now + this.#config.limits.connectTimeoutMs;
  }

  errored(code: number, text: string): void {
    this.#lastError = { code, text };
  }

  /** The connection is gone, by the server, the network or us. */
  disconnected(now: number, ended: number | undefined, out: Effect[]): void {
    if (!this.#isAlive()) return;
    // A network may swallow the close frame behind an `error`; a browser then reports 1006.
    const error = this.#lastError;
    this.#lastError = undefined;
    const code = isFinal(ended) ? ended : error?.code;
    if (!isFinal(code)) return this.#backOff(now);
    if (code === 4401 && this.#config.credentials.kind === "asked" && !this.#tokenRetried) {
      this.#tokenRetried = true;
      this.#token = undefined;
      return this.#connect(now, out);
    }
    const text = error?.code === code ? error.text : `the server closed the connection with code ${code}`;
    this.#link = { state: "rejected", code, text };
  }

  get nextWakeup(): number | undefined {
    const link = this.#link;
    switch (link.state) {
      case "idle":
      case "rejected":
        return undefined;
      case "awaiting-token":
      case "connecting":
      case "greeting":
        return link.deadline;
      case "waiting":
        return link.until;
      case "up": {
        const silence = link.limits.idle_timeout_ms / (link.probed ? 1 : 2);
        const renewAt = this.#renewing ? undefined : this.#renewAt;
        return Math.min(renewAt ?? Infinity, link.goneAt ?? Infinity, link.heardAt + silence);
      }
    }
  }

  /** Does what is due: `probe` asks for a sign of life, `lost` says that the connection was given up. */
  woke(now: number, out: Effect[]): "nothing" | "probe" | "lost" {
    const link = this.#link;
    switch (link.state) {
      case "idle":
      case "rejected":
        return "nothing";
      case "waiting":
        if (link.until <= now) this.#connect(now, out);
        return "nothing";
      case "awaiting-token":
        if (link.deadline <= now) this.#backOff(now);
        return "nothing";
      case "connecting":
      case "greeting":
        return link.deadline <= now ? this.#giveUp(now, out) : "nothing";
      case "up":
        return this.#upWoke(link, now, out);
    }
  }

  #upWoke(link: Up, now: number, out: Effect[]): "nothing" | "probe" | "lost" {
    const silent = link.probed && link.heardAt + link.limits.idle_timeout_ms <= now;
    if (silent || (link.goneAt ?? Infinity) <= now) return this.#giveUp(now, out);
    if (this.#renewAt !== undefined && this.#renewAt <= now && !this.#renewing) {
      this.#renewing = true;
      this.#renewAt = undefined;
      if (this.#config.credentials.kind === "asked") out.push({ type: "need-token" });
    }
    if (link.probed || link.heardAt + link.limits.idle_timeout_ms / 2 > now) return "nothing";
    link.probed = true;
    return "probe";
  }

  #giveUp(now: number, out: Effect[]): "lost" {
    out.push({ type: "disconnect" });
    this.disconnected(now, undefined, out);
    return "lost";
  }

  /** Asks for a token where there is a function for it, anew at each attempt, then connects. */
  #connect(now: number, out: Effect[]): void {
    if (this.#config.credentials.kind === "asked") {
      this.#token = undefined;
      this.#link = { state: "awaiting-token", deadline: now + this.#config.limits.tokenTimeoutMs };
      out.push({ type: "need-token" });
      return;
    }
    this.#link = { state: "connecting", deadline: now + this.#config.limits.connectTimeoutMs };
    out.push({ type: "connect" });
  }

  /** How long before its end a token is not good any more. */
  #margin(now: number, expiresAt: number): number {
    return Math.min(this.#config.limits.renewalMarginMs, Math.max(expiresAt - now, 0) / 4);
  }

  #backOff(now: number): void {
    this.#attempts += 1;
    const delay = backoffMs(this.#config.limits, this.#attempts, this.#random);
    const asked = this.#retryAfterMs;
    this.#retryAfterMs = undefined;
    const jitter = () => this.#random.jitter(this.#config.limits.backoffFirstMs);
    this.#link = { state: "waiting", until: now + (asked === undefined ? delay : asked + jitter()) };
  }

  #isAlive(): boolean {
    return this.#link.state === "connecting" || this.isOpen;
  }
}

/** What breaks WebSocket itself is as final as what breaks the protocol ([C3]). */
const BROKEN_FRAMES = [1002, 1007, 1009];

function isFinal(code: number | undefined): code is number {
  return code !== undefined && ((code >= 4400 && code < 4500) || BROKEN_FRAMES.includes(code));
}
