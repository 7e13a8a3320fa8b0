/**
 * What an event changes in a job as it was last known. Pure.
 *
 * @import {Job, JobEvent} from "../tidings/types.js"
 */

import { moment } from "./format.js";
import { parsePosition, positionOf } from "../tidings/position.js";

// What only holds while a job waits, and no event tells.
const NOT_WAITING = { queue_position: null, waiting_for: null, eta_s: null };

/**
 * Apply an event to a job's record, unless the record is of a later state: a replay changes nothing.
 * @param {Job} job
 * @param {JobEvent} event
 * @returns {Job}
 */
export function reduceJob(job, event) {
  const known = parsePosition(job.position);
  if (known.epoch === event.epoch && known.seq >= event.seq) return job;
  const next = { ...job, position: positionOf(event), attempt: event.attempt, updated_at: event.at };
  const { kind, data } = event;
  switch (kind) {
    case "progress":
      return { ...next, status: "running", progress: data };
    case "started":
      return { ...next, status: "running", started_at: event.at, worker: data?.worker ?? null, ...NOT_WAITING };
    case "queued":
    case "scheduled":
      return { ...next, status: kind, run_at: data?.run_at ?? next.run_at };
    case "retrying":
      return { ...next, status: kind, error: data?.error ?? null };
    case "cancelling":
      return { ...next, cancel_requested: true };
    case "completed":
      return {
        ...next,
        status: kind,
        error: null,
        finished_at: event.at,
        result: data?.result ?? null,
        result_ref: data?.result_ref ?? null,
      };
    case "failed":
    case "cancelled":
      return { ...next, ...NOT_WAITING, status: kind, finished_at: event.at, error: data?.error ?? null };
    default:
      return next;
  }
}

/**
 * The later of two records of the same job.
 * @param {Job | undefined} known
 * @param {Job} read
 */
export function laterJob(known, read) {
  if (!known) return read;
  const [a, b] = [parsePosition(known.position), parsePosition(read.position)];
  if (a.epoch === b.epoch && a.seq > b.seq) return { ...read, ...known, input: read.input ?? known.input };
  return { ...known, ...read };
}

/**
 * What an event says as a line of the log; null for those that are shown otherwise.
 * @param {JobEvent} event
 * @returns {{at: string, level: string, text: string} | null}
 */
export function logLine({ kind, at, attempt, data }) {
  const line = (/** @type {string} */ level, /** @type {string} */ text) => ({ at, level, text });
  const error = data?.error ? withType(data.error) : "";
  switch (kind) {
    case "log":
      return line(String(data?.level ?? "info"), withFields(String(data?.message ?? ""), data?.fields));
    case "scheduled":
      return line("state", `Scheduled for ${moment(data?.run_at) || "later"}`);
    case "queued":
      return line("state", data?.reason ? `Queued again (${data.reason})` : `Queued in ${data?.queue ?? "its queue"}`);
    case "started":
      return line("state", attempt > 1 ? `Started, attempt ${attempt}` : "Started");
    case "retrying":
      return line("warning", `Attempt ${attempt} did not succeed: ${error || "no reason given"}`);
    case "cancelling":
      return line("state", "Cancellation was asked for");
    case "completed":
      return line("state", "Completed");
    case "failed":
      return line("error", `Failed: ${error || "no reason given"}`);
    case "cancelled":
      return line("state", data?.reason ? `Cancelled: ${data.reason}` : "Cancelled");
    default:
      return null;
  }
}

/**
 * The message of a KeyError is its key: nothing without the type.
 * @param {{code: string, type?: string, message: string}} error
 */
function withType({ code, type, message }) {
  return code === "exception" && type ? `${code}: ${type}: ${message}` : `${code}: ${message}`;
}

/**
 * @param {string} message
 * @param {unknown} fields
 */
function withFields(message, fields) {
  if (fields === null || typeof fields !== "object") return message;
  const words = Object.entries(fields).map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
  return [message, ...words].join(" ");
}
