/**
 * Small pieces that several views show: a job's state, its bar, the time.
 *
 * @import {Job, JobState} from "../tidings/types.js"
 */

import { html, useEffect, useState } from "../vendor/htm-preact.module.js";
import { isTerminal } from "../tidings.js";

/** @type {Record<JobState, string>} */
const STATE_WORDS = {
  scheduled: "Scheduled",
  queued: "Queued",
  running: "Running",
  retrying: "Retrying",
  waiting_input: "Waiting for input",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** @param {Job} job */
export function stateWords(job) {
  return job.cancel_requested && !isTerminal(job.status) ? "Cancelling" : (STATE_WORDS[job.status] ?? job.status);
}

/** @param {{job: Job}} props */
export function Pill({ job }) {
  return html`<span class="pill pill-${job.status}">${stateWords(job)}</span>`;
}

/**
 * How far a job is. Without a percentage the bar of a running job is in motion.
 * @param {{job: Job, label: string, large?: boolean}} props
 */
export function Bar({ job, label, large }) {
  const done = job.status === "completed";
  const percent = done ? 100 : job.progress?.percent;
  const known = typeof percent === "number";
  const moving = !known && job.status === "running";
  return html`
    <div class="bar bar-${job.status} ${large ? "bar-large" : ""} ${moving ? "bar-moving" : ""}" role="progressbar" aria-label=${label}
      aria-valuemin="0" aria-valuemax="100" aria-valuenow=${known ? Math.round(percent) : undefined}
      aria-valuetext=${known ? `${Math.round(percent)} percent` : stateWords(job)}>
      <div class="bar-fill" style=${{ width: `${known ? percent : 0}%` }}></div>
    </div>
  `;
}

/**
 * The time now, again every `everyMs` while `active`.
 * @param {number} everyMs
 * @param {boolean} [active]
 */
export function useNow(everyMs, active = true) {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    if (!active) return undefined;
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs, active]);
  return now;
}
