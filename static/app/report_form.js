/**
 * The form for `report.render`: title, format, and sections of Markdown and tables, typed or read from files.
 *
 * @import {Tidings} from "../tidings.js"
 * @import {Job} from "../tidings/types.js"
 * @import {FieldFault} from "./faults.js"
 * @import {Table} from "./csv.js"
 */

import { html, useState } from "../vendor/htm-preact.module.js";
import { TidingsError } from "../tidings.js";
import { parseCsv } from "./csv.js";
import { Field, FormFaults, TextArea, TextField } from "./fields.js";
import { FileImport } from "./file_import.js";
import { TablePreview } from "./table_preview.js";
import { useForm } from "./use_form.js";

/**
 * A section as it is edited. `table` came from a file; `csv` is typed, null while no table is wanted.
 * @typedef {{key: number, heading: string, markdown: string, table: Table | null, csv: string | null, source: string}} Draft
 */

const FORMATS = [["pdf", "PDF"], ["docx", "Word"], ["html", "HTML"]];

let lastKey = 0;
/** @returns {Draft} */
const blank = () => ({ key: ++lastKey, heading: "", markdown: "", table: null, csv: null, source: "" });

/** @param {Draft} section */
const isBlank = (section) => !section.heading && !section.markdown && !section.table && section.csv === null;

/**
 * @param {{tidings: Tidings, onSubmitted: (job: Job) => void}} props
 */
export function ReportForm({ tidings, onSubmitted }) {
  const [title, setTitle] = useState("");
  const [format, setFormat] = useState("pdf");
  const [sections, setSections] = useState(() => [blank()]);

  const { form, faults, busy, onSubmit } = useForm({
    onSubmitted,
    submit: () => tidings.submit("report.render", { title, format, sections: toInput(sections) }),
    paths: () => [
      "input.title",
      "input.format",
      "input.sections",
      ...sections.flatMap((_, i) => ["heading", "markdown", "table"].map((name) => `input.sections.${i}.${name}`)),
    ],
  });

  const change = (/** @type {number} */ key, /** @type {Partial<Draft>} */ values) =>
    setSections((before) => before.map((section) => (section.key === key ? { ...section, ...values } : section)));
  const remove = (/** @type {number} */ key) =>
    setSections((before) => (before.length > 1 ? before.filter((section) => section.key !== key) : [blank()]));
  const move = (/** @type {number} */ index, /** @type {number} */ by) =>
    setSections((before) => {
      const after = [...before];
      after.splice(index + by, 0, ...after.splice(index, 1));
      return after;
    });
  const take = (/** @type {Awaited<ReturnType<typeof import("./import.js").importFile>>} */ imported) => {
    if (imported.title) setTitle((before) => before || imported.title || "");
    const added = imported.sections.map((section) => ({ ...blank(), ...section }));
    setSections((before) => [...before.filter((section) => !isBlank(section)), ...added]);
  };

  return html`
    <form ref=${form} onSubmit=${onSubmit} novalidate aria-label="New report">
      <${FormFaults} faults=${faults} />
      <div class="form-row">
        <${TextField} path="input.title" label="Title" value=${title} onInput=${setTitle} faults=${faults}
          placeholder="Quarterly report" />
        <${Field} path="input.format" label="Format" faults=${faults} group=${true} control=${(/** @type {object} */ attributes) => html`
          <div class="segments" role="radiogroup" ...${attributes}>
            ${FORMATS.map(([value, name]) => html`
              <label>
                <input type="radio" name="format" value=${value} checked=${format === value} onChange=${() => setFormat(value)} />
                <span>${name}</span>
              </label>`)}
          </div>`} />
      </div>
      <${FileImport} onImported=${take} />
      <div class="sections">
        ${sections.map((section, index) => html`
          <${SectionFields} key=${section.key} section=${section} index=${index} count=${sections.length} faults=${faults}
            onChange=${(/** @type {Partial<Draft>} */ values) => change(section.key, values)}
            onRemove=${() => remove(section.key)} onMove=${(/** @type {number} */ by) => move(index, by)} />`)}
      </div>
      <div class="form-actions">
        <button type="button" class="button" onClick=${() => setSections((before) => [...before, blank()])}>Add a section</button>
        <button type="submit" class="button button-main" disabled=${busy}>${busy ? "Submitting…" : "Render the report"}</button>
      </div>
    </form>
  `;
}

/**
 * @param {{section: Draft, index: number, count: number, faults: FieldFault[], onChange: (values: Partial<Draft>) => void,
 *   onRemove: () => void, onMove: (by: number) => void}} props
 */
function SectionFields({ section, index, count, faults, onChange, onRemove, onMove }) {
  const path = `input.sections.${index}`;
  const name = `section ${index + 1}`;
  return html`
    <fieldset class="section">
      <legend>Section ${index + 1}${section.source && html` <span class="source">from ${section.source}</span>`}</legend>
      <div class="section-tools">
        <button type="button" class="icon-button" aria-label="Move ${name} up" title="Move up" disabled=${index === 0}
          onClick=${() => onMove(-1)}>↑</button>
        <button type="button" class="icon-button" aria-label="Move ${name} down" title="Move down"
          disabled=${index === count - 1} onClick=${() => onMove(1)}>↓</button>
        <button type="button" class="icon-button" aria-label="Remove ${name}" title="Remove" onClick=${onRemove}>✕</button>
      </div>
      <${TextField} path="${path}.heading" label="Heading" value=${section.heading} faults=${faults}
        onInput=${(/** @type {string} */ heading) => onChange({ heading })} />
      <${TextArea} path="${path}.markdown" label="Text (Markdown)" value=${section.markdown} faults=${faults} mono=${true}
        rows=${section.markdown.length > 400 ? 10 : 4}
        onInput=${(/** @type {string} */ markdown) => onChange({ markdown })} />
      <${TableFields} path="${path}.table" section=${section} faults=${faults} onChange=${onChange} />
    </fieldset>
  `;
}

/**
 * @param {{path: string, section: Draft, faults: FieldFault[], onChange: (values: Partial<Draft>) => void}} props
 */
function TableFields({ path, section, faults, onChange }) {
  if (section.table) {
    return html`
      <${Field} path=${path} label="Table" faults=${faults} group=${true} control=${(/** @type {object} */ attributes) => html`
        <div role="group" ...${attributes} tabindex="-1"><${TablePreview} table=${section.table} /></div>`} />
      <button type="button" class="link-button" onClick=${() => onChange({ table: null })}>Remove the table</button>
    `;
  }
  if (section.csv === null) {
    return html`<button type="button" class="link-button" onClick=${() => onChange({ csv: "" })}>Add a table</button>`;
  }
  const { table, message } = tryParse(section.csv);
  const shown = message && section.csv ? [...faults, { field: path, message }] : faults;
  return html`
    <${TextArea} path=${path} label="Table (CSV, the first line names the columns)" value=${section.csv} faults=${shown}
      mono=${true} placeholder=${"Region,Sales\nNorth,120\nSouth,98"}
      onInput=${(/** @type {string} */ csv) => onChange({ csv })} />
    ${table && html`<${TablePreview} table=${table} />`}
    <button type="button" class="link-button" onClick=${() => onChange({ csv: null })}>Remove the table</button>
  `;
}

/**
 * @param {string} csv
 * @returns {{table: Table | null, message: string}}
 */
function tryParse(csv) {
  try {
    return { table: parseCsv(csv), message: "" };
  } catch (error) {
    return { table: null, message: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * @param {Draft[]} sections
 * @throws {TidingsError} a typed table is none
 */
function toInput(sections) {
  return sections.map(({ heading, markdown, table, csv }, index) => {
    const typed = table === null && csv !== null ? tryParse(csv) : { table, message: "" };
    if (typed.message) {
      const field = `input.sections.${index}.table`;
      throw new TidingsError({ code: "invalid_input", errors: [{ field, code: "csv", message: typed.message }] });
    }
    return { heading, ...(markdown && { markdown }), ...(typed.table && { table: typed.table }) };
  });
}
