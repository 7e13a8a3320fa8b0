/**
 * One consumer of one job's events: applies each exactly once and in order, and hands it to the handlers.
 *
 * @import {ConnectionState, Job, JobEvent, Outcome, Progress} from "./types.js"
 * @import {TidingsError} from "./errors.js"
 */

import { NOW, judge, judgeLive, parsePosition, positionOf } from "./position.js";

/**
 * @typedef {object} WatchHandlers
 * @property {(event: JobEvent) => void} [onEvent] every event
 * @property {(progress: Progress, event: JobEvent) => void} [onProgress]
 * @property {(entry: {level: string, message: string, fields?: Record<string, unknown>}, event: JobEvent) => void} [onLog]
 * @property {(chunk: any, event: JobEvent) => void} [onOutput]
 * @property {(job: Job) => void} [onReset] the history before this is not to be had: take `job` instead of what was gathered
 * @property {(outcome: Outcome) => void} [onComplete] the job has ended; never called for a dropped stream
 * @property {(state: ConnectionState) => void} [onState]
 * @property {(error: TidingsError) => void} [onError] the server refuses the watch for good, as for a job that is not there
 */

/** More unread events than this, and an iterating watch leaves the stream until its reader has caught up. */
const MAX_UNREAD_EVENTS = 1_000;
/** Epochs remembered as left: their stragglers are repeats. A job sees few. */
const MAX_LEFT_EPOCHS = 16;

const TERMINAL = new Set(["completed", "failed", "cancelled"]);

/** @param {string} word a job's status or an event's kind */
export function isTerminal(word) {
  return TERMINAL.has(word);
}

export class Watch {
  /** @type {string[]} */
  #leftEpochs = [];
  /** @type {JobEvent[] | null} set while somebody iterates */
  #unread = null;
  /** @type {TidingsError | null} */
  #failure = null;
  #wake = () => {};
  #closed = false;
  #done = false;
  #stalled = false;
  #handlers;
  #hooks;

  /**
   * @param {string} jobId
   * @param {string} position where to go on
   * @param {WatchHandlers} handlers
   * @param {{onClose: (watch: Watch) => void, onReady: () => void, onMoved: (watch: Watch, change: {event?: JobEvent, job?: Job}) => void}} hooks
   */
  constructor(jobId, position, handlers, hooks) {
    if (position !== NOW) parsePosition(position);
    this.jobId = jobId;
    /** What has been applied; `Tidings.watch(jobId, {after: position})` goes on from here, on any transport. */
    this.position = position;
    this.#handlers = handlers;
    this.#hooks = hooks;
  }

  /** Whether the job's end was seen. */
  get done() {
    return this.#done;
  }

  /** Whether it takes events now: neither ended, nor closed, nor waiting for its reader or its first snapshot. */
  get following() {
    return this.open && !this.#stalled && !this.unplaced;
  }

  /** Whether it waits for a snapshot to begin with. */
  get unplaced() {
    return this.position === NOW;
  }

  /** Whether it will still take events. */
  get open() {
    return !this.#closed && !this.#done;
  }

  /** Stop watching. No handler is called afterwards. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    this.#wake();
    this.#hooks.onClose(this);
  }

  /**
   * Yield each event, the terminal one last. A slow reader holds at most a bounded number of events.
   * @returns {AsyncGenerator<JobEvent, void, void>}
   */
  async *[Symbol.asyncIterator]() {
    const unread = (this.#unread ??= []);
    try {
      for (;;) {
        const event = unread.shift();
        if (event) {
          yield event;
          continue;
        }
        if (this.#failure) throw this.#failure;
        if (!this.open) return;
        if (this.#stalled) {
          this.#stalled = false;
          this.#hooks.onReady();
        }
        await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
      }
    } finally {
      this.close();
    }
  }

  /**
   * Take an event if it is the next one.
   * @param {JobEvent} event
   * @param {boolean} chosen the server chose it for this very position
   * @returns {"apply" | "repeat" | "gap"}
   */
  offer(event, chosen) {
    if (!this.following) return "repeat";
    if (this.#leftEpochs.includes(event.epoch)) return "repeat";
    const verdict = chosen ? judge(parsePosition(this.position).seq, event) : judgeLive(this.position, event);
    if (verdict === "apply") this.#apply(event);
    return verdict;
  }

  /**
   * Move on over what the server folded away at the end of an answer.
   * @param {string} position
   */
  settle(position) {
    if (!this.following) return;
    const [to, from] = [parsePosition(position), parsePosition(this.position)];
    if (to.seq < from.seq) return;
    this.#leave(to.epoch);
    this.position = position;
  }

  /**
   * Take a snapshot in the place of history that is gone.
   * @param {Job} job
   * @param {string} position
   */
  reset(job, position) {
    if (!this.following && !this.unplaced) return;
    this.#leave(parsePosition(position).epoch);
    this.position = position;
    this.#tell(() => this.#handlers.onReset?.(job));
    this.#hooks.onMoved(this, { job });
  }

  /**
   * End with what a snapshot or a terminal event says.
   * @param {Outcome} outcome
   */
  finish(outcome) {
    if (!this.open) return;
    this.#done = true;
    this.#tell(() => this.#handlers.onComplete?.(outcome));
    this.#wake();
  }

  /** @param {TidingsError} error */
  fail(error) {
    if (!this.open) return;
    this.#failure = error;
    this.#tell(() => this.#handlers.onError?.(error));
    this.close();
  }

  /** @param {ConnectionState} state */
  tellState(state) {
    if (this.open) this.#tell(() => this.#handlers.onState?.(state));
  }

  /** @param {JobEvent} event */
  #apply(event) {
    const { onEvent, onProgress, onLog, onOutput } = this.#handlers;
    this.#leave(event.epoch);
    this.#tell(() => onEvent?.(event));
    if (event.kind === "progress") this.#tell(() => onProgress?.(event.data, event));
    else if (event.kind === "log") this.#tell(() => onLog?.(event.data, event));
    else if (event.kind === "output") this.#tell(() => onOutput?.(event.data?.chunk, event));
    this.position = positionOf(event);
    this.#hooks.onMoved(this, { event });
    if (this.#unread) {
      this.#unread.push(event);
      this.#stalled = this.#unread.length >= MAX_UNREAD_EVENTS;
      this.#wake();
    }
    if (isTerminal(event.kind)) this.finish(outcomeOfEvent(event));
  }

  /** @param {string} nextEpoch */
  #leave(nextEpoch) {
    if (this.unplaced) return;
    const { epoch } = parsePosition(this.position);
    if (epoch === "" || epoch === nextEpoch) return;
    this.#leftEpochs = [...this.#leftEpochs.filter((left) => left !== nextEpoch), epoch].slice(-MAX_LEFT_EPOCHS);
  }

  /**
   * A handler's fault is its own: it is reported as uncaught, and the stream goes on.
   * @param {() => void} call
   */
  #tell(call) {
    if (this.#closed) return;
    try {
      call();
    } catch (error) {
      reportError(error);
    }
  }
}

/**
 * @param {JobEvent} event a terminal one
 * @returns {Outcome}
 */
export function outcomeOfEvent({ kind, data }) {
  return {
    status: /** @type {Outcome["status"]} */ (kind),
    result: data?.result ?? null,
    resultRef: data?.result_ref ?? null,
    error: data?.error ?? null,
    reason: data?.reason ?? null,
    durationS: data?.duration_s ?? null,
  };
}

/**
 * @param {Job} job an ended one
 * @returns {Outcome}
 */
export function outcomeOfJob(job) {
  return {
    status: /** @type {Outcome["status"]} */ (job.status),
    result: job.result ?? null,
    resultRef: job.result_ref ?? null,
    error: job.error ?? null,
    reason: null,
    durationS:
      job.started_at && job.finished_at ? (Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000 : null,
  };
}
