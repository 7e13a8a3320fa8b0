/**
 * The steps of a flow: which are jobs already, how far those are, and what waits.
 *
 * @import {JobBook} from "./book.js"
 * @import {Job} from "../tidings/types.js"
 */

import { html, useEffect, useState } from "../vendor/htm-preact.module.js";
import { isTerminal } from "../tidings.js";
import { Bar, Pill } from "./bits.js";

const MAX_SHOWN = 200;

/** @typedef {{name: string, type: string}} Step */

/**
 * @param {{book: JobBook, job: Job}} props
 */
export function FlowSteps({ book, job }) {
  const [jobs, setJobs] = useState(/** @type {Map<string, Job>} */ (new Map()));
  useEffect(() => {
    let wanted = true;
    book.tidings.list({ parent: job.id, limit: MAX_SHOWN }).then(
      (page) => wanted && setJobs(new Map(page.jobs.map((found) => [found.step ?? "", found]))),
      () => undefined, // what was read before stays; the next event asks again
    );
    return () => {
      wanted = false;
    };
  }, [book, job.id, job.status, job.progress?.current, job.progress?.step]);

  /** @type {Step[]} */
  const steps = job.input.steps;
  return html`
    <section class="card" aria-label="Steps">
      <h2>Steps</h2>
      <ul class="jobs">
        ${steps.slice(0, MAX_SHOWN).map((step) => html`<${StepRow} key=${step.name} step=${step} job=${latest(book, jobs.get(step.name))} isOver=${isTerminal(job.status)} />`)}
      </ul>
      ${steps.length > MAX_SHOWN && html`<p class="hint">and ${(steps.length - MAX_SHOWN).toLocaleString("en")} more</p>`}
    </section>
  `;
}

/**
 * @param {{step: Step, job: Job | undefined, isOver: boolean}} props
 */
function StepRow({ step, job, isOver }) {
  if (!job) {
    return html`<li><span class="job-head"><span class="job-name">${step.name}</span><span class="pill">${isOver ? "Skipped" : "Waiting"}</span></span></li>`;
  }
  return html`
    <li>
      <a href="#/jobs/${job.id}">
        <span class="job-head"><span class="job-name">${step.name}</span><${Pill} job=${job} /></span>
        ${!isTerminal(job.status) && html`<${Bar} job=${job} label="Progress of ${step.name}" />`}
      </a>
    </li>
  `;
}

/**
 * What the page follows anyway is newer than what was asked for, or as new.
 * @param {JobBook} book
 * @param {Job | undefined} job
 */
function latest(book, job) {
  const followed = job && book.job(job.id);
  return followed && (isTerminal(followed.status) || !isTerminal(job.status)) ? followed : job;
}
