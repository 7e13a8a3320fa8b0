/**
 * Why a job that waits is not running yet, in words. Pure.
 *
 * @import {Job} from "../tidings/types.js"
 */

import { duration } from "./format.js";

/** @type {Record<string, string>} */
const REASONS = {
  paused: "the queue is paused",
  rate_limit: "its rate limit is used up for now",
  concurrency: "its key or its queue has as many running as may be",
  circuit_open: "a service that it needs has failed too often",
};

/**
 * @param {Pick<Job, "waiting_for" | "queue_position" | "eta_s">} job a queued one
 * @returns {string} such as `Waits: the queue is paused`, `Number 3 in the queue, done in about 2 min`
 */
export function waitingWords(job) {
  // A newer server may know reasons that this page does not.
  if (job.waiting_for) return `Waits: ${REASONS[job.waiting_for] ?? job.waiting_for.replaceAll("_", " ")}`;
  const place = job.queue_position ? `Number ${job.queue_position} in the queue` : "Waiting for a worker";
  const left = typeof job.eta_s === "number" ? duration(Math.max(1, Math.ceil(job.eta_s))) : "";
  return left ? `${place}, done in about ${left}` : place;
}
