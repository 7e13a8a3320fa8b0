/**
 * Tidings in the browser: submit background jobs and follow them live.
 *
 * ```js
 * import { Tidings } from "/static/tidings.js";
 *
 * const tidings = new Tidings({ token: () => fetchMyToken() });
 * tidings.connect();
 * const job = await tidings.submit("report.render", { title: "Q3", sections: [], format: "pdf" });
 * tidings.watch(job.id, {
 *   onProgress: (progress) => bar.value = progress.percent,
 *   onComplete: (outcome) => show(outcome.status, outcome.result),
 * });
 * ```
 *
 * Each watch sees each event exactly once and in order, whatever drops in between; `docs/browser.md` says how.
 *
 * @import {ConnectionState, Job, JobEvent, JobState, JobType, StoredFile} from "./tidings/types.js"
 * @import {MemoryStorage, RememberedJob} from "./tidings/memory.js"
 * @import {TokenOption} from "./tidings/tokens.js"
 * @import {WatchHandlers} from "./tidings/watch.js"
 */

import { TidingsError, asTidingsError } from "./tidings/errors.js";
import { Link } from "./tidings/link.js";
import { Memory, PageStorage, memoryOf, statusAfter } from "./tidings/memory.js";
import { BEGINNING } from "./tidings/position.js";
import { Rest } from "./tidings/rest.js";
import { Backoff, Slots, pause } from "./tidings/timing.js";
import { Tokens } from "./tidings/tokens.js";
import { Topic } from "./tidings/topic.js";
import { Watch, isTerminal } from "./tidings/watch.js";

export { TidingsError, Watch, isTerminal };

/** Browsers open six connections to a host over HTTP/1.1; long-polls leave half of them free. */
const POLL_SLOTS = 3;
const SUBMIT_TRIES = 5;

/**
 * @typedef {object} TidingsOptions
 * @property {TokenOption} token a JWT, or a function that returns one or a promise of one, called whenever a fresh one is needed
 * @property {string} [url] the server's address; the page's own by default
 * @property {MemoryStorage | null} [storage] where jobs are remembered; `localStorage` by default, null for this page only
 * @property {string[]} [transports] Socket.IO's transports; `["websocket"]` by default, long-poll over HTTP being the way out
 */

/**
 * @typedef {object} SubmitOptions
 * @property {string} [queue]
 * @property {number} [priority]
 * @property {string} [run_at]
 * @property {number} [delay_s]
 * @property {string} [concurrency_key] of the owner's jobs with it only so many run at once, usually one
 * @property {string} [expires_at] if it has not begun by then, it fails
 * @property {number} [expires_in_s]
 * @property {{key: string, ttl_s?: number, mode?: "drop" | "debounce"}} [dedup] while a job with this key is open, it is answered instead
 * @property {string[]} [tags]
 * @property {Record<string, unknown>} [metadata]
 * @property {string} [idempotencyKey] made up when left out; the same one is used for every try
 * @property {boolean} [remember] keep the job for after a reload; true by default
 * @property {AbortSignal} [signal]
 */

/**
 * The client. Events: `state` (detail: `live`, `polling` or `offline`), `error` (detail: the `TidingsError` that refused
 * the token), `expiring` (detail: `{expiresInS}`; only of interest with a fixed token, see `setToken`).
 */
export class Tidings extends EventTarget {
  /** @type {Map<string, Topic>} */
  #topics = new Map();
  #slots = new Slots(POLL_SLOTS);
  #tokens;
  #rest;
  #link;
  #storage;
  /** @type {Promise<Memory> | null} */
  #memory = null;

  /** @param {TidingsOptions} options */
  constructor({ token, url, storage, transports = ["websocket"] }) {
    super();
    const base = new URL(url ?? "/", globalThis.location?.href);
    this.#tokens = new Tokens(token);
    this.#rest = new Rest({ base, tokens: this.#tokens, onReach: (reached) => this.#link.noteHttp(reached) });
    this.#link = new Link({ base, tokens: this.#tokens, transports, probe: () => this.#rest.probe() });
    this.#storage = storage === undefined ? browserStorage() : (storage ?? new PageStorage());
    this.#link.addEventListener("job", (event) => {
      const { jobId, name, message } = /** @type {CustomEvent} */ (event).detail;
      this.#topics.get(jobId)?.receive(name, message);
    });
    for (const name of ["state", "error", "expiring"]) {
      this.#link.addEventListener(name, (event) => this.#announce(name, /** @type {CustomEvent} */ (event).detail));
    }
  }

  /** @returns {ConnectionState} */
  get state() {
    return this.#link.state;
  }

  /** Open the live connection and keep it open. Watching does this by itself. Returns the client. */
  connect() {
    globalThis.addEventListener?.("pagehide", this.#onPageHide);
    this.#link.open();
    return this;
  }

  /** Close every watch and the connection. The client can be connected again. */
  close() {
    for (const topic of [...this.#topics.values()]) topic.close();
    this.#link.close();
    globalThis.removeEventListener?.("pagehide", this.#onPageHide);
    this.#onPageHide();
  }

  /**
   * Use another token for the same subject, on the live connection too.
   * @param {TokenOption} token
   */
  setToken(token) {
    this.#tokens.replace(token);
    this.#link.tokenReplaced();
  }

  /**
   * Submit a job. When the answer is lost it is asked for again under the same Idempotency-Key, so that the job
   * exists once.
   * @param {string} type
   * @param {Record<string, unknown>} input
   * @param {SubmitOptions} [options]
   * @returns {Promise<Job>}
   * @throws {TidingsError} with `errors` naming the fields that are wrong
   */
  async submit(type, input, { idempotencyKey = newKey(), remember = true, signal, ...more } = {}) {
    const request = { json: { type, input, ...more }, headers: { "Idempotency-Key": idempotencyKey }, signal };
    const backoff = new Backoff();
    for (let tries = 1; ; tries++) {
      try {
        const job = /** @type {Job} */ (await this.#rest.call("POST", "/api/jobs", request));
        if (remember) await this.remember(job, BEGINNING);
        return job;
      } catch (reason) {
        if (signal?.aborted) throw reason;
        const error = asTidingsError(reason);
        if (tries === SUBMIT_TRIES || !mayHaveHappened(error)) throw error;
        await pause(Math.max(backoff.next(), Math.min(error.retryAfterS ?? 0, 30) * 1000), signal);
      }
    }
  }

  /**
   * Follow a job: from its first event, from `after` (a position), or from how it stands now (`"now"`, which
   * begins with `onReset`). Also an async iterable of its events.
   * @param {string} jobId
   * @param {WatchHandlers & {after?: string}} [options]
   * @returns {Watch}
   * @throws {RangeError} `after` is no position
   */
  watch(jobId, { after = BEGINNING, ...handlers } = {}) {
    this.connect();
    const watch = new Watch(jobId, after, handlers, {
      onClose: (closed) => this.#topics.get(jobId)?.remove(closed),
      onReady: () => this.#topics.get(jobId)?.disturb(),
      onMoved: (moved, change) => void this.#onMoved(moved, change),
    });
    watch.tellState(this.state);
    this.#topicOf(jobId).add(watch);
    return watch;
  }

  /**
   * Follow every remembered job that had not ended, each from where it was left.
   * @param {(job: RememberedJob) => WatchHandlers} handlersFor
   * @returns {Promise<Watch[]>}
   */
  async resume(handlersFor) {
    const open = (await this.remembered()).filter((job) => !isTerminal(job.status));
    return open.map((job) => this.watch(job.id, { ...handlersFor(job), after: job.position }));
  }

  /**
   * Keep a job for after a reload; its position and progress are kept up to date while it is watched.
   * @param {Job} job
   * @param {string} [position] from where it is to be followed; where the record stood by default
   */
  async remember(job, position) {
    (await this.#remembrance()).put(memoryOf(job, position));
  }

  /**
   * The remembered jobs of the token's subject, newest first.
   * @returns {Promise<RememberedJob[]>}
   */
  async remembered() {
    return (await this.#remembrance()).list();
  }

  /** @param {string} jobId */
  async forget(jobId) {
    (await this.#remembrance()).forget(jobId);
  }

  /**
   * @param {string} jobId
   * @returns {Promise<Job>}
   */
  get(jobId) {
    return this.#rest.call("GET", `/api/jobs/${encodeURIComponent(jobId)}`);
  }

  /**
   * The caller's jobs, newest first.
   * @param {{status?: JobState, type?: string, queue?: string, tag?: string, parent?: string, created_after?: string, limit?: number, cursor?: string}} [filter]
   * @returns {Promise<{jobs: Job[], next_cursor: string | null}>}
   */
  list(filter = {}) {
    return this.#rest.call("GET", "/api/jobs", { query: filter });
  }

  /**
   * The result of a job that has ended; needed when its outcome only tells a `resultRef`.
   * @param {string} jobId
   * @returns {Promise<any>}
   */
  result(jobId) {
    return this.#rest.call("GET", `/api/jobs/${encodeURIComponent(jobId)}/result`);
  }

  /**
   * Ask for a job's cancellation.
   * @param {string} jobId
   * @returns {Promise<Job>}
   */
  cancel(jobId) {
    return this.#rest.call("POST", `/api/jobs/${encodeURIComponent(jobId)}/cancel`);
  }

  /**
   * Run a failed or cancelled job again, as a new job.
   * @param {string} jobId
   * @returns {Promise<Job>}
   */
  async retry(jobId) {
    const job = await this.#rest.call("POST", `/api/jobs/${encodeURIComponent(jobId)}/retry`);
    await this.remember(job, BEGINNING);
    return job;
  }

  /** @returns {Promise<JobType[]>} */
  async jobTypes() {
    const answer = await this.#rest.call("GET", "/api/job-types");
    return answer.job_types;
  }

  /**
   * Store a file, as input of jobs.
   * @param {File} file
   * @param {{onProgress?: (sent: number, total: number) => void, signal?: AbortSignal}} [options]
   * @returns {Promise<StoredFile>}
   */
  upload(file, options) {
    return this.#rest.upload(file, options);
  }

  /**
   * Fetch a stored file, such as a job's output; a plain link could not send the token.
   * @param {Pick<StoredFile, "url">} file
   * @param {AbortSignal} [signal]
   * @returns {Promise<Blob>}
   * @throws {TypeError} the file is not on this server
   */
  download(file, signal) {
    return this.#rest.blob(file.url, signal);
  }

  /** @param {string} jobId */
  #topicOf(jobId) {
    let topic = this.#topics.get(jobId);
    if (!topic) {
      topic = new Topic(jobId, {
        link: this.#link,
        rest: this.#rest,
        slots: this.#slots,
        onIdle: (idle) => this.#topics.get(jobId) === idle && this.#topics.delete(jobId),
      });
      this.#topics.set(jobId, topic);
    }
    return topic;
  }

  /** @returns {Promise<Memory>} */
  #remembrance() {
    this.#memory ??= this.#tokens.subject().then(
      (subject) => new Memory(this.#storage, subject),
      (error) => {
        this.#memory = null;
        throw error;
      },
    );
    return this.#memory;
  }

  /**
   * @param {Watch} watch
   * @param {{event?: JobEvent, job?: Job}} change
   */
  async #onMoved(watch, { event, job }) {
    const { position } = watch;
    const memory = await this.#remembrance().catch(() => null);
    const known = memory?.find(watch.jobId);
    if (!memory || !known) return;
    if (job) memory.put(memoryOf(job, position));
    else if (event) memory.put({ ...known, ...statusAfter(event), position });
  }

  #onPageHide = () => void this.#memory?.then((memory) => memory.flush());

  /**
   * @param {string} name
   * @param {any} detail
   */
  #announce(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
    if (name === "state") for (const topic of this.#topics.values()) topic.tellState(detail);
  }
}

/**
 * Whether a submission may have been taken although its answer says nothing of the kind.
 * @param {TidingsError} error
 */
function mayHaveHappened(error) {
  return error.code === "connection_lost" || error.code === "idempotency_in_flight" || error.status >= 500;
}

/** A random key; `crypto.randomUUID` is missing on pages that were not loaded over a secure connection. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function browserStorage() {
  try {
    return globalThis.localStorage ?? new PageStorage();
  } catch {
    return new PageStorage(); // forbidden by the browser's settings
  }
}
