/**
 * The jobs on the page: what is known of each, kept up to date by watches, told as `change` a few times a second.
 *
 * @import {Tidings, Watch} from "../tidings.js"
 * @import {TidingsError} from "../tidings/errors.js"
 * @import {Job, JobEvent} from "../tidings/types.js"
 * @import {OutputPart} from "./output.js"
 */

import { isTerminal } from "../tidings.js";
import { withChunk } from "./output.js";
import { laterJob, logLine, reduceJob } from "./reduce.js";

const PAGE_JOBS = 30;
/** Open jobs that are followed for the list; older ones show what they were at the last refresh. */
const MAX_WATCHED = 30;
const MAX_LOG_LINES = 1_000;
const REFRESH_MS = 20_000;
const TELL_MS = 60;

/** @typedef {{key: number, at: string, level: string, text: string}} LogLine */
/** @typedef {{log: LogLine[], output: OutputPart[], cut: boolean, error: TidingsError | null, watch: Watch | null}} Detail */

export class JobBook extends EventTarget {
  /** @type {Map<string, Job>} */
  #jobs = new Map();
  /** @type {Map<string, Watch>} */
  #watches = new Map();
  /** @type {Map<string, Detail>} */
  #details = new Map();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #telling;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #refreshing;
  #lineKey = 0;
  /** @type {string | null} */
  #cursor = null;
  #pages = 0;
  /** @type {TidingsError | null} why the list could not be read */
  error = null;
  /** Whether the server has told its list once. */
  loaded = false;

  /** @param {Tidings} tidings */
  constructor(tidings) {
    super();
    this.tidings = tidings;
  }

  /** Pick up the open jobs that this browser remembers, then ask the server for its list. */
  async start() {
    this.tidings.addEventListener("state", this.#onState);
    this.#refreshing = setInterval(this.#onInterval, REFRESH_MS);
    for (const job of await this.tidings.remembered().catch(() => [])) {
      if (!isTerminal(job.status)) this.#put({ ...job, attempt: 0, created_at: job.created_at ?? undefined });
    }
    this.#tell();
    await this.refresh();
  }

  stop() {
    clearInterval(this.#refreshing);
    clearTimeout(this.#telling);
    this.tidings.removeEventListener("state", this.#onState);
    this.tidings.close();
  }

  /** Newest first. */
  list() {
    return [...this.#jobs.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  }

  get hasMore() {
    return this.#cursor !== null;
  }

  /** @param {string} id */
  job(id) {
    return this.#jobs.get(id) ?? null;
  }

  /** @param {string} id */
  detail(id) {
    return this.#details.get(id) ?? null;
  }

  /** Read the newest jobs. */
  async refresh() {
    try {
      const page = await this.tidings.list({ limit: PAGE_JOBS });
      if (this.#pages <= 1) this.#cursor = page.next_cursor;
      this.#pages ||= 1;
      this.#forgetDeleted(page.jobs, page.next_cursor === null);
      for (const job of page.jobs) this.#put(job);
      this.loaded = true;
      this.error = null;
    } catch (error) {
      this.error = /** @type {TidingsError} */ (error);
    }
    this.#followOpen();
    this.#tell();
  }

  /** Read the next page of older jobs. */
  async more() {
    if (this.#cursor === null) return;
    const page = await this.tidings.list({ limit: PAGE_JOBS, cursor: this.#cursor });
    this.#pages++;
    this.#cursor = page.next_cursor;
    for (const job of page.jobs) this.#put(job);
    this.#followOpen();
    this.#tell();
  }

  /**
   * Take a job that was just submitted.
   * @param {Job} job
   */
  add(job) {
    this.#put(job);
    this.#followOpen();
    this.#tell();
  }

  /**
   * Follow a job with its whole log and output, from the first event on.
   * @param {string} id
   */
  async open(id) {
    if (this.#details.has(id)) return;
    /** @type {Detail} */
    const detail = { log: [], output: [], cut: false, error: null, watch: null };
    this.#details.set(id, detail);
    try {
      this.#put(await this.tidings.get(id));
    } catch (error) {
      if (!this.#jobs.has(id)) detail.error = /** @type {TidingsError} */ (error);
    }
    if (this.#details.get(id) !== detail) return;
    if (!detail.error) detail.watch = this.#watchInDetail(id, detail);
    this.#tell();
  }

  /** @param {string} id */
  shut(id) {
    this.#details.get(id)?.watch?.close();
    this.#details.delete(id);
  }

  /** @param {string} id */
  async cancel(id) {
    this.#put(await this.tidings.cancel(id));
    this.#tell();
  }

  /**
   * @param {string} id
   * @returns {Promise<Job>} the new job
   */
  async retry(id) {
    const job = await this.tidings.retry(id);
    this.add(job);
    return job;
  }

  /** @param {string} id */
  async loadResult(id) {
    const result = await this.tidings.result(id);
    const job = this.#jobs.get(id);
    if (job) this.#jobs.set(id, { ...job, result, result_ref: null });
    this.#tell();
  }

  /**
   * @param {string} id
   * @param {Detail} detail
   */
  #watchInDetail(id, detail) {
    return this.tidings.watch(id, {
      onEvent: (event) => {
        this.#take(id, event);
        const line = logLine(event);
        if (line) this.#addLine(detail, line);
        if (event.kind === "output") this.#addOutput(detail, event);
      },
      onReset: (job) => {
        Object.assign(detail, { log: [], output: [], cut: true });
        this.#put(job, true);
        this.#tell();
      },
      onError: (error) => {
        detail.error = error;
        this.#tell();
      },
    });
  }

  /** Watch the open jobs of the list, the newest first. */
  #followOpen() {
    const open = this.list().filter((job) => !isTerminal(job.status)).slice(0, MAX_WATCHED);
    for (const job of open) {
      if (this.#watches.has(job.id)) continue;
      const unwatch = () => this.#watches.delete(job.id);
      this.#watches.set(job.id, this.tidings.watch(job.id, {
        after: job.position,
        onEvent: (event) => this.#take(job.id, event),
        onReset: (snapshot) => this.#put(snapshot, true),
        onComplete: () => unwatch(),
        onError: () => {
          unwatch();
          this.#jobs.delete(job.id);
          void this.tidings.forget(job.id);
          this.#tell();
        },
      }));
    }
  }

  /**
   * @param {string} id
   * @param {JobEvent} event
   */
  #take(id, event) {
    const job = this.#jobs.get(id);
    if (job) this.#jobs.set(id, reduceJob(job, event));
    this.#tell();
  }

  /**
   * @param {Job} job
   * @param {boolean} [always] even if what is known seems later, as after a reset
   */
  #put(job, always = false) {
    this.#jobs.set(job.id, always ? { ...this.#jobs.get(job.id), ...job } : laterJob(this.#jobs.get(job.id), job));
  }

  /**
   * What the server's list leaves out between two jobs it names was deleted.
   * @param {Job[]} page
   * @param {boolean} isAll
   */
  #forgetDeleted(page, isAll) {
    const named = new Set(page.map((job) => job.id));
    const oldest = isAll ? "" : (page.at(-1)?.id ?? "");
    const newest = page[0]?.id ?? "";
    for (const id of this.#jobs.keys()) {
      if (named.has(id) || id < oldest || id > newest || this.#details.has(id)) continue;
      this.#watches.get(id)?.close();
      this.#watches.delete(id);
      this.#jobs.delete(id);
      void this.tidings.forget(id);
    }
  }

  /**
   * @param {Detail} detail
   * @param {{at: string, level: string, text: string}} line
   */
  #addLine(detail, line) {
    detail.log = [...detail.log.slice(-(MAX_LOG_LINES - 1)), { key: this.#lineKey++, ...line }];
    if (detail.log.length === MAX_LOG_LINES) detail.cut = true;
  }

  /**
   * @param {Detail} detail
   * @param {JobEvent} event
   */
  #addOutput(detail, { attempt, data }) {
    const { parts, cut } = withChunk(detail.output, attempt, data?.chunk);
    detail.output = parts;
    detail.cut ||= cut;
  }

  #onState = () => {
    if (this.tidings.state !== "offline") void this.refresh();
    this.#tell();
  };

  #onInterval = () => {
    if (document.visibilityState !== "visible") return;
    void this.refresh();
    for (const id of this.#details.keys()) void this.#readHints(id);
  };

  /**
   * Read anew what no event tells of a job that waits: its place in the queue, what keeps it back.
   * @param {string} id
   */
  async #readHints(id) {
    const job = this.#jobs.get(id);
    if (!job || isTerminal(job.status) || job.status === "running") return;
    try {
      this.#put(await this.tidings.get(id));
      this.#tell();
    } catch {
      // The watch says what is wrong; these are hints.
    }
  }

  #tell() {
    this.#telling ??= setTimeout(() => {
      this.#telling = undefined;
      this.dispatchEvent(new Event("change"));
    }, TELL_MS);
  }
}
