/**
 * One job as it goes: bar, log, output, result, and what can be done with it.
 *
 * @import {JobBook} from "./book.js"
 * @import {TidingsError} from "../tidings/errors.js"
 * @import {Job} from "../tidings/types.js"
 */

import { html, useEffect, useState } from "../vendor/htm-preact.module.js";
import { isTerminal } from "../tidings.js";
import { Bar, Pill, stateWords, useNow } from "./bits.js";
import { FlowSteps } from "./flow_steps.js";
import { ago, duration, remaining } from "./format.js";
import { LogView, OutputView } from "./log_view.js";
import { aboutJob, nameOfJob } from "./naming.js";
import { ResultView } from "./result_view.js";
import { waitingWords } from "./waiting.js";

/**
 * @param {{book: JobBook, id: string, onRetried: (job: Job) => void}} props
 */
export function JobDetail({ book, id, onRetried }) {
  useEffect(() => {
    void book.open(id);
    return () => book.shut(id);
  }, [book, id]);

  const job = book.job(id);
  const detail = book.detail(id);
  if (detail?.error) return html`<${NotShown} id=${id} error=${detail.error} />`;
  if (!job) return html`<section class="pane"><p class="hint">Reading the job…</p></section>`;
  return html`
    <section class="pane" aria-labelledby="job-title">
      <a class="back" href="#/jobs">← All jobs</a>
      <${Heading} job=${job} book=${book} onRetried=${onRetried} />
      <${ProgressCard} job=${job} />
      ${job.type === "flow" && job.input?.steps && html`<${FlowSteps} book=${book} job=${job} />`}
      ${(job.status === "completed" || job.error) && html`<${ResultView} key=${job.id} job=${job} book=${book} />`}
      ${detail && detail.output.length > 0 && html`<${OutputView} parts=${detail.output} />`}
      ${detail && html`<${LogView} lines=${detail.log} cut=${detail.cut} />`}
      <${Facts} job=${job} />
    </section>
  `;
}

/** @param {{id: string, error: TidingsError}} props */
function NotShown({ id, error }) {
  const unknown = error.code === "job_not_found";
  return html`
    <section class="pane" aria-labelledby="job-title">
      <a class="back" href="#/jobs">← All jobs</a>
      <h1 id="job-title">${unknown ? "There is no such job" : "The job cannot be shown"}</h1>
      <p>${unknown ? "It may have been deleted, its address may be incomplete, or it belongs to somebody else." : error.message}</p>
      <p class="meta"><code>${id}</code></p>
    </section>
  `;
}

/**
 * @param {{job: Job, book: JobBook, onRetried: (job: Job) => void}} props
 */
function Heading({ job, book, onRetried }) {
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState("");
  const act = async (/** @type {() => Promise<void>} */ action) => {
    setBusy(true);
    setFault("");
    await action().catch((error) => setFault(error.message));
    setBusy(false);
  };
  const canCancel = !isTerminal(job.status);
  const canRetry = job.status === "failed" || job.status === "cancelled";
  return html`
    <header class="job-title">
      <div>
        <h1 id="job-title" tabindex="-1">${nameOfJob(job)}</h1>
        <p class="meta"><${Pill} job=${job} /> ${aboutJob(job) && html`<span>${aboutJob(job)}</span>`} <code>${job.id}</code></p>
      </div>
      <div class="actions">
        ${canCancel && html`
          <button type="button" class="button button-bad" disabled=${busy || job.cancel_requested}
            onClick=${() => act(() => book.cancel(job.id))}>${job.cancel_requested ? "Cancelling…" : "Cancel"}</button>`}
        ${canRetry && html`
          <button type="button" class="button" disabled=${busy}
            onClick=${() => act(async () => onRetried(await book.retry(job.id)))}>Run again</button>`}
      </div>
      <p class="visually-hidden" role="status">${nameOfJob(job)}: ${stateWords(job)}</p>
    </header>
    <div role="alert" class=${fault ? "notice notice-bad" : ""}>${fault}</div>
  `;
}

/** @param {{job: Job}} props */
function ProgressCard({ job }) {
  const running = job.status === "running";
  const now = useNow(1_000, !isTerminal(job.status));
  const { percent, message, current, total } = job.progress ?? {};
  const left = running ? (remaining(job.progress, job.started_at, now) ?? job.eta_s ?? null) : null;
  const stopped = job.status === "failed" || job.status === "cancelled";
  const shownPercent = job.status === "completed" ? 100 : stopped ? null : percent;
  return html`
    <div class="card progress-card">
      <div class="progress-head">
        <span class="percent">${typeof shownPercent === "number" ? `${Math.floor(shownPercent)} %` : stateWords(job)}</span>
        <span class="progress-message">${sentence(job, message)}</span>
      </div>
      <${Bar} job=${job} label="Progress" large=${true} />
      <div class="progress-foot">
        <span>${typeof current === "number" ? `${current.toLocaleString("en")}${typeof total === "number" ? ` of ${total.toLocaleString("en")}` : ""}` : ""}</span>
        <span>${[running && job.slow && "slower than usual", timing(job, left, now)].filter(Boolean).join(", ")}</span>
      </div>
    </div>
  `;
}

/**
 * @param {Job} job
 * @param {string | null | undefined} message
 */
function sentence(job, message) {
  switch (job.status) {
    case "completed":
      return "Done";
    case "failed":
      return [job.error?.code === "timeout" && "It took too long.", reached(job)].filter(Boolean).join(" ");
    case "cancelled":
      return reached(job);
    case "scheduled":
      return "Waiting for its time.";
    case "queued":
      return waitingWords(job);
    case "retrying":
      return "Waiting for the next attempt.";
    default:
      return message ?? "";
  }
}

/**
 * How far a job that did not succeed had got; the last thing it did may well have been to report 100 %.
 * @param {Job} job
 */
function reached(job) {
  const percent = job.progress?.percent;
  return typeof percent === "number" ? `It had reported ${Math.floor(percent)} %.` : "";
}

/**
 * @param {Job} job
 * @param {number | null} left
 * @param {number} now
 */
function timing(job, left, now) {
  if (left !== null) return `about ${duration(Math.max(Math.ceil(left), 1))} left`;
  if (job.started_at && job.finished_at) {
    return `took ${duration((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1_000)}`;
  }
  if (job.status === "scheduled" && job.run_at) return `due ${ago(job.run_at, now)}`;
  if (job.status === "running" && job.started_at) return `running for ${duration(Math.max(0, now - Date.parse(job.started_at)) / 1_000)}`;
  return "";
}

/** @param {{job: Job}} props */
function Facts({ job }) {
  /** @type {[string, any][]} */
  const facts = [
    ["Submitted", time(job.created_at)],
    ["Started", time(job.started_at)],
    ["Ended", time(job.finished_at)],
    ["Queue", job.queue],
    ["Concurrency key", job.concurrency_key],
    ["Expires", isTerminal(job.status) || job.status === "running" ? null : time(job.expires_at)],
    ["Attempts", job.attempt ? String(job.attempt) : null],
    ["Worker", job.worker],
    ["Tags", job.tags?.join(", ")],
    ["Step of", job.parent && html`<a href="#/jobs/${job.parent}"><code>${job.parent}</code></a> (${job.step})`],
    ["Repeats", job.retry_of && html`<a href="#/jobs/${job.retry_of}"><code>${job.retry_of}</code></a>`],
  ];
  return html`
    <details class="card facts"><summary>Details</summary>
      <dl>${facts.filter(([, value]) => value).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
      ${job.input !== undefined && html`<h3>Input</h3><pre tabindex="0">${shorten(JSON.stringify(job.input, null, 2))}</pre>`}
    </details>
  `;
}

/** @param {string | null | undefined} at */
function time(at) {
  return at ? html`<time datetime=${at}>${new Date(at).toLocaleString()}</time>` : null;
}

/** @param {string} text */
function shorten(text) {
  return text.length > 20_000 ? `${text.slice(0, 20_000)}\n… and ${(text.length - 20_000).toLocaleString("en")} more characters` : text;
}
