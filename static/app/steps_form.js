/**
 * The form for `demo.steps`: a job that takes as long, and fails when, it is told to.
 *
 * @import {Tidings} from "../tidings.js"
 * @import {Job} from "../tidings/types.js"
 */

import { html, useState } from "../vendor/htm-preact.module.js";
import { FormFaults, NumberField } from "./fields.js";
import { useForm } from "./use_form.js";

/** @type {{name: string, label: string, hint: string, placeholder?: string}[]} */
const FIELDS = [
  { name: "steps", label: "Steps", hint: "1 to 100,000" },
  { name: "delay_ms", label: "Delay between steps (ms)", hint: "0 to 60,000" },
  { name: "output_every", label: "Output every … steps", hint: "Leave empty for none", placeholder: "none" },
  { name: "fail_at", label: "Fail at step", hint: "Leave empty to succeed", placeholder: "never" },
  { name: "fail_times", label: "Fail on the first … attempts", hint: "Leave empty for all", placeholder: "all" },
];

/**
 * @param {{tidings: Tidings, onSubmitted: (job: Job) => void}} props
 */
export function StepsForm({ tidings, onSubmitted }) {
  const [values, setValues] = useState(
    /** @type {Record<string, number | null>} */ ({ steps: 60, delay_ms: 250, output_every: 10, fail_at: null, fail_times: null }),
  );
  const { form, faults, busy, onSubmit } = useForm({
    onSubmitted,
    submit: () => tidings.submit("demo.steps", Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null))),
    paths: () => FIELDS.map(({ name }) => `input.${name}`),
  });
  return html`
    <form ref=${form} onSubmit=${onSubmit} novalidate aria-label="New demo job">
      <${FormFaults} faults=${faults} />
      <div class="form-grid">
        ${FIELDS.map(({ name, ...field }) => html`
          <${NumberField} key=${name} path="input.${name}" faults=${faults} value=${values[name]} ...${field}
            onInput=${(/** @type {number | null} */ value) => setValues((before) => ({ ...before, [name]: value }))} />`)}
      </div>
      <div class="form-actions">
        <button type="submit" class="button button-main" disabled=${busy}>${busy ? "Submitting…" : "Start the steps"}</button>
      </div>
    </form>
  `;
}
