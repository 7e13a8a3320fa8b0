/**
 * Choosing what to start: a report, the demo, or any other job type.
 *
 * @import {Tidings} from "../tidings.js"
 * @import {Job} from "../tidings/types.js"
 */

import { html, useRef, useState } from "../vendor/htm-preact.module.js";
import { AnyForm } from "./any_form.js";
import { ReportForm } from "./report_form.js";
import { StepsForm } from "./steps_form.js";

/** @type {[string, string, string, any][]} */
const TABS = [
  ["report", "Report", "Text and tables become a PDF, a Word document or a web page.", ReportForm],
  ["steps", "Demo", "A job that takes its time, to see how it is followed.", StepsForm],
  ["any", "Any type", "Whatever else this server can run, with its input as JSON.", AnyForm],
];

/**
 * The forms stay in the page while a job is looked at, so that nothing typed is lost.
 * @param {{tidings: Tidings, hidden: boolean, onSubmitted: (job: Job) => void}} props
 */
export function NewJob({ tidings, hidden, onSubmitted }) {
  const [chosen, setChosen] = useState("report");
  const [visited, setVisited] = useState(["report"]);
  const tabs = useRef(/** @type {HTMLElement | null} */ (null));

  const choose = (/** @type {string} */ name) => {
    setChosen(name);
    setVisited((before) => (before.includes(name) ? before : [...before, name]));
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const index = (TABS.findIndex(([name]) => name === chosen) + step + TABS.length) % TABS.length;
    choose(TABS[index][0]);
    /** @type {HTMLElement | undefined} */ (tabs.current?.children[index])?.focus();
  };

  return html`
    <section class="pane" hidden=${hidden} aria-labelledby="new-title">
      <a class="back" href="#/jobs">← All jobs</a>
      <h1 id="new-title">New job</h1>
      <div class="tabs" role="tablist" aria-label="Kind of job" ref=${tabs} onKeyDown=${onKey}>
        ${TABS.map(([name, label]) => html`
          <button type="button" role="tab" id="tab-${name}" aria-controls="panel-${name}" aria-selected=${String(name === chosen)}
            tabindex=${name === chosen ? 0 : -1} onClick=${() => choose(name)}>${label}</button>`)}
      </div>
      ${TABS.map(([name, , words, Form]) => html`
        <div class="card panel" role="tabpanel" id="panel-${name}" aria-labelledby="tab-${name}" hidden=${name !== chosen}>
          <p class="lead">${words}</p>
          ${visited.includes(name) && html`<${Form} tidings=${tidings} onSubmitted=${onSubmitted} />`}
        </div>`)}
    </section>
  `;
}
