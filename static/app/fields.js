/**
 * Labelled form controls that show what the server says is wrong with them.
 *
 * @import {Child} from "../vendor/htm-preact.module.js"
 * @import {FieldFault} from "./faults.js"
 */

import { html } from "../vendor/htm-preact.module.js";
import { faultsAt } from "./faults.js";

/**
 * @typedef {object} FieldProps
 * @property {string} path the field's name in the request, such as `input.title`
 * @property {string} label
 * @property {Child} [hint]
 * @property {FieldFault[]} faults all faults of the form
 * @property {boolean} [group] the control is a group of several, which the label cannot point at
 */

/**
 * A label, a control, a hint and what is wrong.
 * @param {FieldProps & {control: (attributes: Record<string, unknown>) => Child}} props
 */
export function Field({ path, label, hint, faults, group, control }) {
  const id = `field-${path.replaceAll(".", "-")}`;
  const own = faultsAt(faults, path);
  const described = [hint && `${id}-hint`, own.length && `${id}-fault`].filter(Boolean).join(" ");
  const attributes = {
    ...(group ? { "aria-labelledby": `${id}-label` } : { id, name: path }),
    "aria-invalid": own.length ? "true" : undefined,
    "aria-describedby": described || undefined,
  };
  return html`
    <div class="field">
      ${group ? html`<span class="label" id="${id}-label">${label}</span>` : html`<label for=${id}>${label}</label>`}
      ${control(attributes)}
      ${hint && html`<div class="hint" id="${id}-hint">${hint}</div>`}
      <${Faults} id="${id}-fault" faults=${own} />
    </div>
  `;
}

/**
 * @param {FieldProps & {value: string, onInput: (value: string) => void, placeholder?: string, mono?: boolean}} props
 */
export function TextField({ value, onInput, placeholder, mono, ...field }) {
  const control = (/** @type {object} */ attributes) => html`
    <input type="text" class=${mono ? "mono" : ""} autocomplete="off" placeholder=${placeholder} value=${value}
      onInput=${(/** @type {any} */ event) => onInput(event.target.value)} ...${attributes} />
  `;
  return html`<${Field} ...${field} control=${control} />`;
}

/**
 * @param {FieldProps & {value: string, onInput: (value: string) => void, placeholder?: string, rows?: number, mono?: boolean}} props
 */
export function TextArea({ value, onInput, placeholder, rows = 5, mono, ...field }) {
  const control = (/** @type {object} */ attributes) => html`
    <textarea rows=${rows} class=${mono ? "mono" : ""} spellcheck=${!mono} placeholder=${placeholder} value=${value}
      onInput=${(/** @type {any} */ event) => onInput(event.target.value)} ...${attributes}></textarea>
  `;
  return html`<${Field} ...${field} control=${control} />`;
}

/**
 * A whole number, or nothing.
 * @param {FieldProps & {value: number | null, onInput: (value: number | null) => void, placeholder?: string}} props
 */
export function NumberField({ value, onInput, placeholder, ...field }) {
  const control = (/** @type {object} */ attributes) => html`
    <input type="number" step="1" inputmode="numeric" placeholder=${placeholder} value=${value ?? ""}
      onInput=${(/** @type {any} */ event) => onInput(event.target.value === "" ? null : Number(event.target.value))}
      ...${attributes} />
  `;
  return html`<${Field} ...${field} control=${control} />`;
}

/**
 * @param {{id?: string, faults: FieldFault[]}} props
 */
export function Faults({ id, faults }) {
  if (!faults.length) return null;
  return html`<ul class="faults" id=${id}>${faults.map((fault) => html`<li>${fault.message}</li>`)}</ul>`;
}

/**
 * What is wrong with the form as a whole, announced when it appears.
 * @param {{faults: FieldFault[]}} props
 */
export function FormFaults({ faults }) {
  const own = faultsAt(faults, "");
  return html`
    <div role="alert" class=${own.length ? "notice notice-bad" : ""}>
      ${own.map((fault) => html`<p>${fault.message}</p>`)}
    </div>
  `;
}
