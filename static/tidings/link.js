/**
 * The live connection: one Socket.IO connection, opened again whenever it is lost, and the connection state.
 *
 * Events: `change` when the connection came or went, `state` when the connection state did, `error` when the
 * token was refused, `expiring` before it ends, `job` for each `job:*` message.
 *
 * @import {ConnectionState, Problem} from "./types.js"
 * @import {Tokens} from "./tokens.js"
 * @import {Socket} from "../vendor/socket.io.esm.min.js"
 */

import { io } from "../vendor/socket.io.esm.min.js";
import { TidingsError, asTidingsError, connectionLost } from "./errors.js";
import { Backoff } from "./timing.js";

const OPEN_TIMEOUT_MS = 8_000;
const CONNECT_TIMEOUT_MS = 12_000;
const CALL_TIMEOUT_MS = 10_000;
/** A connection that held this long was a good one: the next loss starts with a short delay again. */
const STABLE_MS = 5_000;
/** How long a new or lost connection is waited for before HTTP is used instead. */
const HOPE_MS = 1_500;
/** A planned move to another server is not announced when it succeeds within this time. */
const MOVE_GRACE_MS = 2_000;

export class Link extends EventTarget {
  /** @type {Socket} */
  #socket;
  #tokens;
  #probe;
  #backoff = new Backoff();
  #wanted = false;
  /** @type {ConnectionState} */
  #state = "offline";
  /** Whether HTTP answered when last tried since the live connection was lost. */
  #reachable = false;
  /** The token was refused and no other one can be had: waiting for `Tidings.setToken`. */
  #refused = false;
  #renewNext = false;
  #movingUntil = 0;
  #retryNotBefore = 0;
  /** The connection was just asked for or lost, and nothing speaks against having it in a moment. */
  #hopeful = false;
  /** @type {Partial<Record<"retry" | "deadline" | "stable" | "move" | "grace" | "hope", ReturnType<typeof setTimeout>>>} */
  #timers = {};

  /**
   * @param {object} options
   * @param {URL} options.base
   * @param {Tokens} options.tokens
   * @param {string[]} options.transports as Socket.IO names them
   * @param {() => Promise<void>} options.probe tries HTTP; what comes of it is told to `noteHttp`
   */
  constructor({ base, tokens, transports, probe }) {
    super();
    this.#tokens = tokens;
    this.#probe = probe;
    this.#socket = io(base.origin, {
      path: "/socket.io",
      transports,
      forceNew: true,
      autoConnect: false,
      // Its own reconnecting knows neither `server:draining` nor tokens that must be fetched first.
      reconnection: false,
      timeout: OPEN_TIMEOUT_MS,
      auth: (give) => {
        this.#tokenForConnect().then(
          (token) => give({ token }),
          (error) => this.#onRefused(asTidingsError(error)),
        );
      },
    });
    this.#listen();
  }

  /** @returns {ConnectionState} */
  get state() {
    return this.#state;
  }

  /** Whether subscriptions can be made now. */
  get live() {
    return this.#socket.connected;
  }

  /** Whether it is worth a moment's waiting for the live connection. */
  get hopeful() {
    return this.#hopeful;
  }

  /** Whether work waits for another token. */
  get refused() {
    return this.#refused;
  }

  open() {
    if (this.#wanted) return;
    this.#wanted = true;
    globalThis.addEventListener?.("online", this.#hurry);
    globalThis.document?.addEventListener("visibilitychange", this.#hurry);
    this.#hope();
    this.#connect();
  }

  close() {
    this.#wanted = false;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    globalThis.removeEventListener?.("online", this.#hurry);
    globalThis.document?.removeEventListener("visibilitychange", this.#hurry);
    this.#socket.disconnect();
    this.#reachable = false;
    this.#settle();
  }

  /** Use the token source anew: on the open connection when there is one, else by connecting again. */
  tokenReplaced() {
    this.#refused = false;
    if (!this.#wanted) return;
    if (this.live) void this.#authenticate(() => this.#tokens.get(), () => this.#drop());
    else {
      this.#backoff.reset();
      this.#connect();
    }
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Emit a call and take its acknowledgement.
   * @template T
   * @param {string} name
   * @param {Record<string, unknown>} payload
   * @param {(answer: any) => T} take called before any message that follows the acknowledgement
   * @returns {Promise<T>} what `take` returned
   * @throws {TidingsError} refused, or not acknowledged in time (then the connection is given up)
   */
  call(name, payload, take) {
    return new Promise((resolve, reject) => {
      if (!this.live) throw connectionLost("There is no live connection.");
      this.#socket.timeout(CALL_TIMEOUT_MS).emit(name, payload, (/** @type {unknown} */ lost, /** @type {any} */ answer) => {
        if (lost) {
          // A peer that does not acknowledge is as good as gone; connecting again resumes by position.
          this.#drop();
          reject(connectionLost(`The server did not acknowledge ${name}.`, lost));
        } else if (!answer?.ok) {
          reject(new TidingsError(answer?.error ?? { code: "protocol_error", detail: `${name}: an answer of no known form` }));
        } else {
          try {
            resolve(take(answer));
          } catch (error) {
            reject(error);
          }
        }
      });
    });
  }

  /**
   * The token was refused over HTTP: with no other one to be had, nothing more is tried until there is.
   * @param {TidingsError} refusal
   */
  noteRefusal(refusal) {
    if (!this.live && !this.#refused) this.#onRefused(refusal);
  }

  /**
   * Tell whether HTTP answered; it decides between `polling` and `offline` while the live connection is gone.
   * @param {boolean} reached
   */
  noteHttp(reached) {
    this.#reachable = reached;
    this.#settle();
  }

  #listen() {
    const socket = this.#socket;
    socket.on("connect", () => this.#onLive());
    socket.on("disconnect", () => this.#onLost());
    socket.on("connect_error", (error) => this.#onConnectError(error));
    socket.on("token:expiring", (notice) => this.#onExpiring(notice));
    socket.on("server:draining", (notice) => this.#onDraining(notice));
    socket.on("bye", (notice) => this.#onBye(notice));
    socket.onAny((name, message) => {
      const jobId = name.startsWith("job:") ? (message?.job_id ?? message?.job?.id) : null;
      if (typeof jobId === "string") this.dispatchEvent(new CustomEvent("job", { detail: { jobId, name, message } }));
    });
  }

  #connect() {
    clearTimeout(this.#timers.retry);
    if (!this.#wanted || this.#refused || this.live) return;
    clearTimeout(this.#timers.deadline);
    this.#timers.deadline = setTimeout(() => {
      this.#socket.disconnect();
      this.#onConnectError(new Error("no answer to the connect packet"));
    }, CONNECT_TIMEOUT_MS);
    this.#socket.disconnect();
    this.#socket.connect();
  }

  #hope() {
    this.#hopeful = true;
    clearTimeout(this.#timers.hope);
    this.#timers.hope = setTimeout(() => this.#giveUpHope(), HOPE_MS);
  }

  #giveUpHope() {
    clearTimeout(this.#timers.hope);
    if (!this.#hopeful) return;
    this.#hopeful = false;
    if (this.live) return;
    this.#settle();
    this.dispatchEvent(new Event("change"));
  }

  #onLive() {
    this.#giveUpHope();
    clearTimeout(this.#timers.deadline);
    clearTimeout(this.#timers.retry);
    this.#movingUntil = 0;
    this.#retryNotBefore = 0;
    this.#renewNext = false;
    this.#timers.stable = setTimeout(() => this.#backoff.reset(), STABLE_MS);
    this.#settle();
    this.dispatchEvent(new Event("change"));
  }

  #onLost() {
    clearTimeout(this.#timers.stable);
    clearTimeout(this.#timers.move);
    this.#reachable = false;
    this.#hope();
    this.#settle();
    this.dispatchEvent(new Event("change"));
    this.#retryLater(this.#movingUntil > Date.now());
  }

  /** @param {Error & {data?: Problem}} error */
  #onConnectError(error) {
    clearTimeout(this.#timers.deadline);
    this.#giveUpHope();
    const refusal = error.data ? new TidingsError({ code: error.message, ...error.data }) : null;
    if (refusal?.needsToken) return this.#onRefused(refusal);
    this.#retryLater();
    if (!this.#reachable) void this.#probe();
  }

  /**
   * The token was refused: try once with a fresh one, then wait for `tokenReplaced`.
   * @param {TidingsError} refusal
   */
  #onRefused(refusal) {
    clearTimeout(this.#timers.deadline);
    if (this.#tokens.canRenew && !this.#renewNext) {
      this.#renewNext = true;
      this.#retryLater();
      return;
    }
    this.#renewNext = this.#tokens.canRenew;
    this.#refused = !this.#tokens.canRenew;
    this.dispatchEvent(new CustomEvent("error", { detail: refusal }));
    this.#settle();
    this.#retryLater();
  }

  async #tokenForConnect() {
    if (!this.#renewNext) return this.#tokens.get();
    return this.#tokens.renew();
  }

  /** @param {{expires_in_s?: number}} [notice] */
  #onExpiring(notice) {
    this.dispatchEvent(new CustomEvent("expiring", { detail: { expiresInS: notice?.expires_in_s ?? 0 } }));
    if (!this.#tokens.canRenew) return; // the connection lives until the token's end, or `setToken`
    void this.#authenticate(() => this.#tokens.renew(), (refusal) => {
      if (refusal.needsToken) this.dispatchEvent(new CustomEvent("error", { detail: refusal }));
    });
  }

  /**
   * Show a token on the live connection.
   * @param {() => Promise<string>} getToken
   * @param {(refusal: TidingsError) => void} onFailure
   */
  async #authenticate(getToken, onFailure) {
    try {
      await this.call("authenticate", { token: await getToken() }, () => undefined);
    } catch (error) {
      onFailure(asTidingsError(error));
    }
  }

  /** @param {{reconnect_in_ms?: number}} [notice] */
  #onDraining(notice) {
    const delay = clamp(notice?.reconnect_in_ms, 0, 60_000, 1_000);
    this.#retryNotBefore = Date.now() + delay;
    this.#movingUntil = this.#retryNotBefore + MOVE_GRACE_MS;
    clearTimeout(this.#timers.move);
    this.#timers.move = setTimeout(() => this.#drop(), delay);
  }

  /** @param {{code?: string}} [notice] */
  #onBye(notice) {
    switch (notice?.code) {
      case "token_expired":
      case "token_revoked":
        this.#renewNext = this.#tokens.canRenew;
        if (!this.#tokens.canRenew) {
          this.#onRefused(new TidingsError({ code: notice.code, status: 401, title: "The token is no longer valid" }));
        }
        break;
      case "server_draining":
        this.#movingUntil = Math.max(this.#movingUntil, Date.now() + MOVE_GRACE_MS);
        break;
      case "protocol_error":
        // The server could not understand us; the same words again and again would not help it.
        this.#retryNotBefore = Date.now() + this.#backoff.capMs;
        break;
      default: // slow_consumer, and what a newer server may say: come back and resume by position
    }
  }

  #drop() {
    if (this.live) this.#socket.disconnect();
  }

  /** @param {boolean} [soon] the loss was planned and another server is ready */
  #retryLater(soon = false) {
    clearTimeout(this.#timers.retry);
    if (!this.#wanted || this.#refused) return;
    const planned = this.#retryNotBefore - Date.now();
    const jitter = Math.random() * 250;
    const delay = planned > 0 ? planned + jitter : soon ? jitter : this.#backoff.next();
    this.#timers.retry = setTimeout(() => this.#connect(), delay);
  }

  #hurry = () => {
    if (globalThis.document?.visibilityState === "hidden" || this.#retryNotBefore > Date.now()) return;
    if (this.#wanted && !this.live) this.#connect();
  };

  /** Work out the connection state and announce it when it changed. */
  #settle() {
    clearTimeout(this.#timers.grace);
    const moving = this.#movingUntil - Date.now();
    if (this.#wanted && !this.live && this.#state === "live" && moving > 0) {
      this.#timers.grace = setTimeout(() => this.#settle(), moving);
      return;
    }
    /** @type {ConnectionState} */
    let state = "offline";
    if (this.live) state = "live";
    else if (this.#wanted && this.#reachable && !this.#refused && !this.#hopeful) state = "polling";
    if (state === this.#state) return;
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}

/**
 * @param {unknown} value
 * @param {number} least
 * @param {number} most
 * @param {number} otherwise
 */
function clamp(value, least, most, otherwise) {
  return typeof value === "number" && Number.isFinite(value) ? Math.min(most, Math.max(least, value)) : otherwise;
}
