/**
 * One job that is being watched: follows it live when that can be had, else by long-poll, and closes every gap.
 *
 * All watches of a job share one topic, since a connection has one subscription a job: it is made from the lowest
 * position among them, and each watch drops what it has seen.
 *
 * @import {Answer, Job, JobEvent} from "./types.js"
 * @import {TidingsError} from "./errors.js"
 * @import {Link} from "./link.js"
 * @import {Rest} from "./rest.js"
 * @import {Slots} from "./timing.js"
 * @import {Watch} from "./watch.js"
 */

import { asTidingsError } from "./errors.js";
import { BEGINNING, lowest, parsePosition } from "./position.js";
import { Backoff, aborted, pause } from "./timing.js";
import { isTerminal, outcomeOfEvent, outcomeOfJob } from "./watch.js";

const POLL_WAIT_S = 25;
/** With more jobs than slots, each holds a slot only briefly. */
const CROWDED_WAIT_S = 1;
/** A busy job fills each answer; this keeps it from being asked for every single event. */
const POLL_INTERVAL_MS = 250;
const PAGE_EVENTS = 500;
/** After so many answers in a row that left the same gap, the snapshot is taken instead. */
const MAX_VAIN_ANSWERS = 3;

export class Topic {
  /** @type {Set<Watch>} */
  #watches = new Set();
  #round = new AbortController();
  #running = false;
  #subscribed = false;
  /**
   * Live events are taken: the newest acknowledgement was applied and nothing was missing since. What comes
   * between a subscribe and its acknowledgement belongs to the subscription before, and is told again.
   */
  #attached = false;
  #epoch = "";
  #asksInVain = 0;
  #lastAsked = "";
  #checkedEnd = false;
  #backoff = new Backoff({ firstMs: 300 });
  #parts;

  /**
   * @param {string} jobId
   * @param {{link: Link, rest: Rest, slots: Slots, onIdle: (topic: Topic) => void}} parts
   */
  constructor(jobId, parts) {
    this.jobId = jobId;
    this.#parts = parts;
  }

  /** @param {Watch} watch */
  add(watch) {
    this.#watches.add(watch);
    this.disturb();
    if (!this.#running) void this.#run();
  }

  /** Close every watch. */
  close() {
    for (const watch of [...this.#watches]) watch.close();
  }

  /** @param {Watch} watch */
  remove(watch) {
    this.#watches.delete(watch);
    if (!this.#following().length) this.disturb();
  }

  /** End the present round, so that the next one asks from where the watches stand. */
  disturb() {
    this.#round.abort();
  }

  /** @param {import("./types.js").ConnectionState} state */
  tellState(state) {
    for (const watch of [...this.#watches]) watch.tellState(state);
  }

  /**
   * A message of this job's subscription.
   * @param {string} name
   * @param {any} message
   */
  receive(name, message) {
    if (name === "job:reset") return this.#onReset(message.job, message.position ?? message.job.position);
    if (this.#attached) this.#onLive(message);
  }

  async #run() {
    this.#running = true;
    const { link } = this.#parts;
    const onChange = () => this.disturb();
    link.addEventListener("change", onChange);
    try {
      while ([...this.#watches].some((watch) => watch.open)) await this.#goRound();
    } finally {
      link.removeEventListener("change", onChange);
      this.#running = false;
    }
    this.#unsubscribe();
    this.#parts.onIdle(this);
  }

  /** Follow until something changes: the connection, the watches, or a gap. */
  async #goRound() {
    this.#round = new AbortController();
    const { signal } = this.#round;
    const { link } = this.#parts;
    try {
      await this.#placeNewcomers(signal);
      if (!this.#following().length) {
        this.#unsubscribe();
        await aborted(signal);
      } else if (link.live) await this.#followLive(signal);
      else if (link.refused || link.hopeful) await aborted(signal);
      else await this.#followPolling(signal);
    } catch (reason) {
      if (signal.aborted) return;
      await this.#onFailure(asTidingsError(reason), signal);
    } finally {
      this.#attached = false;
    }
  }

  /**
   * Give the watches that begin "now" the record to begin with.
   * @param {AbortSignal} signal
   */
  async #placeNewcomers(signal) {
    const newcomers = [...this.#watches].filter((watch) => watch.open && watch.unplaced);
    if (!newcomers.length) return;
    const job = await this.#snapshot(signal);
    for (const watch of newcomers) {
      watch.reset(job, job.position);
      if (isTerminal(job.status)) watch.finish(outcomeOfJob(job));
    }
  }

  #unsubscribe() {
    const { link } = this.#parts;
    if (this.#subscribed && link.live) link.call("unsubscribe", { job_id: this.jobId }, () => undefined).catch(() => undefined);
    this.#subscribed = false;
  }

  /** @param {AbortSignal} signal */
  async #followLive(signal) {
    const asked = await this.#nextAsk(signal);
    this.#subscribed = true;
    const subscribed = this.#parts.link.call("subscribe", { job_id: this.jobId, after: asked }, (answer) => {
      if (!signal.aborted) this.#attached = this.#applyAnswer(answer, asked);
      return /** @type {Answer} */ (answer);
    });
    const answer = await Promise.race([subscribed, aborted(signal)]);
    if (!this.#attached) return;
    this.#backoff.reset();
    if (!answer.events.length && !answer.reset) await this.#checkEnd(answer.position, signal);
    if (this.#following().length) await aborted(signal);
  }

  /** @param {AbortSignal} signal */
  async #followPolling(signal) {
    const { rest, slots } = this.#parts;
    // The first answer comes at once and tells whether polling works at all.
    for (let waitS = 0; this.#following().length; waitS = slots.crowded ? CROWDED_WAIT_S : POLL_WAIT_S) {
      const asked = await this.#nextAsk(signal);
      const release = await slots.take(signal);
      /** @type {Answer} */
      let page;
      try {
        page = await rest.call("GET", `/api/jobs/${this.jobId}/events`, {
          query: { after: asked, wait: waitS, limit: PAGE_EVENTS },
          signal,
          timeoutMs: (waitS + 15) * 1000,
        });
      } finally {
        release();
      }
      signal.throwIfAborted();
      if (!this.#applyAnswer(page, asked)) return;
      this.#backoff.reset();
      if (page.done && this.#following().length) return this.#finishFromRecord(await this.#snapshot(signal));
      if (page.events.length < PAGE_EVENTS) await pause(POLL_INTERVAL_MS, signal);
    }
  }

  /**
   * Where to ask from; waits when asking from there brought nothing before, and gives up on a hole in the log.
   * @param {AbortSignal} signal
   */
  async #nextAsk(signal) {
    if (this.#asksInVain >= MAX_VAIN_ANSWERS) {
      const job = await this.#snapshot(signal);
      this.#asksInVain = 0;
      this.#onReset(job, job.position);
    } else if (this.#asksInVain > 1) await pause(this.#backoff.next(), signal);
    signal.throwIfAborted();
    this.#lastAsked = lowest(this.#following().map((watch) => watch.position), this.#epoch) ?? BEGINNING;
    return this.#lastAsked;
  }

  /**
   * @param {Answer} answer
   * @param {string} asked
   * @returns {boolean} whether the watches now stand where the answer ends; if not, the round is over
   */
  #applyAnswer(answer, asked) {
    this.#epoch = parsePosition(answer.position).epoch;
    if (answer.reset && answer.job) this.#takeSnapshot(answer.job, answer.job.position);
    let whole = true;
    for (const watch of this.#following()) {
      const chosen = Boolean(answer.reset) || watch.position === asked;
      const gap = answer.events.some((event) => watch.offer(event, chosen) === "gap");
      if (gap) whole = false;
      else if (chosen) watch.settle(answer.position);
      if (answer.reset && answer.job && watch.open) this.#finishFromReset(watch, answer, answer.job);
    }
    if (whole) this.#asksInVain = 0;
    else this.#onGap();
    return whole;
  }

  /**
   * After a reset the end may be known from the snapshot alone.
   * @param {Watch} watch
   * @param {Answer} answer
   * @param {Job} job
   */
  #finishFromReset(watch, answer, job) {
    const last = answer.events.at(-1);
    if (last && isTerminal(last.kind)) watch.finish(outcomeOfEvent(last));
    else if (isTerminal(job.status)) watch.finish(outcomeOfJob(job));
  }

  /** @param {JobEvent} event */
  #onLive(event) {
    for (const watch of this.#following()) {
      const verdict = watch.offer(event, false);
      if (verdict === "apply") [this.#epoch, this.#asksInVain] = [event.epoch, 0];
      else if (verdict === "gap") return this.#onGap();
    }
    if (!this.#following().length) this.disturb();
  }

  /** Something is missing: ask again. Until then, what comes live is not for us. */
  #onGap() {
    const from = lowest(this.#following().map((watch) => watch.position), this.#epoch);
    this.#asksInVain = from === this.#lastAsked ? this.#asksInVain + 1 : 1;
    this.#attached = false;
    this.disturb();
  }

  /**
   * History forked behind the watches.
   * @param {Job} job
   * @param {string} position
   */
  #onReset(job, position) {
    this.#takeSnapshot(job, position);
    // What follows the snapshot is asked for: messages that crossed the reset can't be told apart.
    this.#attached = false;
    this.disturb();
  }

  /**
   * @param {Job} job
   * @param {string} position
   */
  #takeSnapshot(job, position) {
    this.#epoch = parsePosition(position).epoch;
    this.#checkedEnd = false;
    for (const watch of this.#following()) watch.reset(job, position);
  }

  /**
   * Asked from its very end, a log has nothing more to say: then the record tells that the job has ended.
   * @param {string} position
   * @param {AbortSignal} signal
   */
  async #checkEnd(position, signal) {
    if (this.#checkedEnd) return;
    const job = await this.#snapshot(signal);
    this.#checkedEnd = true;
    if (job.position === position) this.#finishFromRecord(job);
  }

  /** @param {Job} job */
  #finishFromRecord(job) {
    if (isTerminal(job.status)) for (const watch of this.#following()) watch.finish(outcomeOfJob(job));
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<Job>}
   */
  #snapshot(signal) {
    return this.#parts.rest.call("GET", `/api/jobs/${this.jobId}`, { signal });
  }

  /**
   * @param {TidingsError} error
   * @param {AbortSignal} signal
   */
  async #onFailure(error, signal) {
    try {
      if (error.needsToken) {
        this.#parts.link.noteRefusal(error);
        await pause(this.#backoff.capMs, signal);
      } else if (error.temporary) await pause(Math.max(this.#backoff.next(), (error.retryAfterS ?? 0) * 1000), signal);
      else for (const watch of [...this.#watches]) watch.fail(error);
    } catch {
      // Disturbed while waiting: the next round begins at once.
    }
  }

  #following() {
    return [...this.#watches].filter((watch) => watch.following);
  }
}
