/**
 * A form for every other job type the server has: its description, its schema, and the input as JSON.
 *
 * @import {Tidings} from "../tidings.js"
 * @import {Job, JobType} from "../tidings/types.js"
 */

import { html, useEffect, useState } from "../vendor/htm-preact.module.js";
import { TidingsError } from "../tidings.js";
import { Field, FormFaults, TextArea } from "./fields.js";
import { Prose, singleTicks } from "./prose.js";
import { exampleOf } from "./schema.js";
import { useForm } from "./use_form.js";

/**
 * @param {{tidings: Tidings, onSubmitted: (job: Job) => void}} props
 */
export function AnyForm({ tidings, onSubmitted }) {
  const [types, setTypes] = useState(/** @type {JobType[] | null} */ (null));
  const [failure, setFailure] = useState("");
  const [name, setName] = useState("");
  const [input, setInput] = useState("{}");

  const choose = (/** @type {JobType | undefined} */ type) => {
    setName(type?.type ?? "");
    setInput(JSON.stringify(type ? exampleOf(type.input_schema) : {}, null, 2));
  };
  useEffect(() => {
    tidings.jobTypes().then(
      (found) => {
        setTypes(found);
        choose(found[0]);
      },
      (error) => setFailure(error.message),
    );
  }, [tidings]);

  const { form, faults, busy, onSubmit } = useForm({
    onSubmitted,
    submit: async () => tidings.submit(name, parse(input)),
    paths: () => ["type", "input"],
  });
  const type = types?.find((known) => known.type === name);

  if (failure) return html`<p class="notice notice-bad" role="alert">The job types could not be read: ${failure}</p>`;
  if (!types) return html`<p class="hint">Reading the job types…</p>`;
  return html`
    <form ref=${form} onSubmit=${onSubmit} novalidate aria-label="New job of any type">
      <${FormFaults} faults=${faults} />
      <${Field} path="type" label="Job type" hint=${type?.description && html`<${Prose} text=${type.description} />`} faults=${faults} control=${(/** @type {object} */ attributes) => html`
        <select value=${name} ...${attributes}
          onChange=${(/** @type {any} */ event) => choose(types.find((known) => known.type === event.target.value))}>
          ${types.map((known) => html`<option value=${known.type}>${known.type}</option>`)}
        </select>`} />
      <${TextArea} path="input" label="Input (JSON)" rows=${10} mono=${true} value=${input} onInput=${setInput} faults=${faults} />
      ${type && html`
        <details class="schema"><summary>What the input may hold</summary>
          <pre tabindex="0">${singleTicks(JSON.stringify(type.input_schema, null, 2))}</pre>
        </details>`}
      <div class="form-actions">
        <button type="submit" class="button button-main" disabled=${busy || !name}>${busy ? "Submitting…" : "Submit the job"}</button>
      </div>
    </form>
  `;
}

/**
 * @param {string} text
 * @returns {Record<string, unknown>}
 */
function parse(text) {
  let message;
  try {
    const input = JSON.parse(text);
    if (input !== null && typeof input === "object" && !Array.isArray(input)) return input;
    message = "The input is an object: { … }";
  } catch (error) {
    message = error instanceof Error ? error.message : String(error);
  }
  throw new TidingsError({ code: "invalid_input", errors: [{ field: "input", code: "json", message }] });
}
