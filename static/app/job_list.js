/**
 * The caller's jobs, newest first, each with its state and a live bar.
 *
 * @import {JobBook} from "./book.js"
 */

import { html, useState } from "../vendor/htm-preact.module.js";
import { isTerminal } from "../tidings.js";
import { Bar, Pill, useNow } from "./bits.js";
import { ago } from "./format.js";
import { aboutJob, nameOfJob, shortId } from "./naming.js";

/**
 * @param {{book: JobBook, current: string | null, hidden: boolean}} props
 */
export function JobList({ book, current, hidden }) {
  const now = useNow(15_000);
  const [loading, setLoading] = useState(false);
  const jobs = book.list();
  const open = jobs.filter((job) => !isTerminal(job.status)).length;

  const more = async () => {
    setLoading(true);
    await book.more().catch(() => undefined);
    setLoading(false);
  };

  return html`
    <nav class="sidebar ${hidden ? "narrow-hidden" : ""}" aria-label="Your jobs">
      <a class="button button-main button-wide" href="#/new" aria-current=${current === null ? "page" : undefined}>New job</a>
      <h2>Your jobs ${open > 0 && html`<span class="count">${open} open</span>`}</h2>
      ${book.error && html`<p class="notice notice-bad" role="alert">The list could not be read: ${book.error.message}</p>`}
      ${!jobs.length && html`<p class="empty">${book.loaded ? "None yet. Start one, and it shows up here." : "Reading your jobs…"}</p>`}
      <ul class="jobs">
        ${jobs.map((job) => html`
          <li key=${job.id}>
            <a href="#/jobs/${job.id}" aria-current=${job.id === current ? "page" : undefined}>
              <span class="job-head"><span class="job-name">${nameOfJob(job)}</span><${Pill} job=${job} /></span>
              ${!isTerminal(job.status) && html`<${Bar} job=${job} label="Progress of ${nameOfJob(job)}" />`}
              <span class="job-foot">
                <span class="job-about">${aboutJob(job)}</span>
                <code title=${job.id}>${shortId(job.id)}</code>
                <span class="job-age">${job.created_at ? ago(job.created_at, now) : ""}</span>
              </span>
            </a>
          </li>`)}
      </ul>
      ${book.hasMore && html`
        <button type="button" class="button button-wide" disabled=${loading} onClick=${more}>${loading ? "Reading…" : "Show older jobs"}</button>`}
    </nav>
  `;
}
