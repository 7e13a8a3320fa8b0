/** What a browser remembers of the jobs it follows, so that a reload picks them up where it left them. */

/**
 * @import {Job, JobEvent, JobState, Progress} from "./types.js"
 */

import { parsePosition } from "./position.js";

const PREFIX = "tidings:jobs:";
const MAX_JOBS = 100;
/** Writing storage is slow and synchronous; a lost half second costs a repeat at worst. */
const WRITE_DELAY_MS = 500;

/**
 * @typedef {object} RememberedJob
 * @property {string} id
 * @property {string} type
 * @property {JobState} status
 * @property {string} position up to where its events were seen
 * @property {Progress | null} progress
 * @property {string | null} created_at
 */

/** Where memory is kept: `localStorage`, or anything with these three methods. */
/** @typedef {Pick<Storage, "getItem" | "setItem" | "removeItem">} MemoryStorage */

export class Memory {
  /** @type {Map<string, RememberedJob>} */
  #changed = new Map();
  /** @type {Set<string>} */
  #forgotten = new Set();
  /** @type {Map<string, RememberedJob>} as last read: events come faster than storage should be parsed */
  #known;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #storage;
  #key;

  /**
   * @param {MemoryStorage} storage
   * @param {string} subject one list for each, since tokens of several people may be used in one browser
   */
  constructor(storage, subject) {
    this.#storage = storage;
    this.#key = PREFIX + subject;
    this.#known = this.#read();
  }

  /**
   * Newest first.
   * @returns {RememberedJob[]}
   */
  list() {
    const jobs = (this.#known = this.#read());
    for (const [id, job] of this.#changed) jobs.set(id, ahead(jobs.get(id), job));
    for (const id of this.#forgotten) jobs.delete(id);
    return [...jobs.values()].sort((a, b) => (a.id < b.id ? 1 : -1)).slice(0, MAX_JOBS);
  }

  /** @param {string} id */
  find(id) {
    return this.#changed.get(id) ?? this.#known.get(id) ?? null;
  }

  /** @param {RememberedJob} job */
  put(job) {
    this.#forgotten.delete(job.id);
    this.#changed.set(job.id, ahead(this.#changed.get(job.id), job));
    this.#timer ??= setTimeout(() => this.flush(), WRITE_DELAY_MS);
  }

  /** @param {string} id */
  forget(id) {
    this.#changed.delete(id);
    this.#known.delete(id);
    this.#forgotten.add(id);
    this.flush();
  }

  /** Write now. Other tabs write the same list: what they added meanwhile is kept. */
  flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!this.#changed.size && !this.#forgotten.size) return;
    const jobs = this.list();
    try {
      this.#storage.setItem(this.#key, JSON.stringify(jobs));
    } catch {
      return; // full or forbidden: it stays in this page's memory
    }
    this.#known = new Map(jobs.map((job) => [job.id, job]));
    this.#changed.clear();
    this.#forgotten.clear();
  }

  /** @returns {Map<string, RememberedJob>} */
  #read() {
    try {
      const jobs = JSON.parse(this.#storage.getItem(this.#key) ?? "[]");
      return new Map(jobs.filter(isRemembered).map((/** @type {RememberedJob} */ job) => [job.id, job]));
    } catch {
      return new Map();
    }
  }
}

/**
 * The same job seen by two watches: what was seen furthest counts.
 * @param {RememberedJob | undefined} known
 * @param {RememberedJob} next
 */
function ahead(known, next) {
  if (!known) return next;
  const [a, b] = [parsePosition(known.position), parsePosition(next.position)];
  return a.epoch === b.epoch && b.seq < a.seq ? known : next;
}

/**
 * @param {any} job
 * @returns {job is RememberedJob}
 */
function isRemembered(job) {
  try {
    parsePosition(job.position);
  } catch {
    return false;
  }
  return typeof job.id === "string" && typeof job.type === "string" && typeof job.status === "string";
}

/**
 * What an event tells of its job's state.
 * @param {JobEvent} event
 * @returns {Partial<RememberedJob>}
 */
export function statusAfter({ kind, data }) {
  switch (kind) {
    case "progress":
      return { status: "running", progress: data };
    case "started":
      return { status: "running" };
    case "scheduled":
    case "queued":
    case "retrying":
    case "completed":
    case "failed":
    case "cancelled":
      return { status: kind };
    default:
      // It tells nothing of the state, or a newer release speaks of what this one does not know.
      return {};
  }
}

/**
 * @param {Job} job
 * @param {string} [position] when it is to be followed from elsewhere than where the record was read
 * @returns {RememberedJob}
 */
export function memoryOf(job, position = job.position) {
  return {
    id: job.id,
    type: job.type,
    status: job.status,
    position,
    progress: job.progress ?? null,
    created_at: job.created_at ?? null,
  };
}

/** For browsers that refuse `localStorage`. */
export class PageStorage {
  /** @type {Map<string, string>} */
  #values = new Map();

  /** @param {string} key */
  getItem(key) {
    return this.#values.get(key) ?? null;
  }

  /**
   * @param {string} key
   * @param {string} value
   */
  setItem(key, value) {
    this.#values.set(key, value);
  }

  /** @param {string} key */
  removeItem(key) {
    this.#values.delete(key);
  }
}
