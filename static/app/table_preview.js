/**
 * The first rows of a table, and how large it is.
 *
 * @import {Table} from "./csv.js"
 */

import { html, useMemo } from "../vendor/htm-preact.module.js";

const SHOWN_ROWS = 4;
/** What the report shows as a number, whether it is one or a text that looks like one. */
const NUMBER_LIKE = /^\(?[+\-−]?\s?[$€£¥]?\s?\d[\d.,'’\s]*\s?(%|[$€£¥]|[A-Z]{3})?\)?$/;

/**
 * @param {Table} table
 * @param {number} column
 */
function isNumeric(table, column) {
  const filled = table.rows.map((row) => row[column]).filter((cell) => cell !== null && cell !== "");
  return filled.length > 0 && filled.every((cell) => typeof cell === "number" || NUMBER_LIKE.test(String(cell).trim()));
}

/** @param {{table: Table}} props */
export function TablePreview({ table }) {
  const { columns, rows } = table;
  const more = rows.length - SHOWN_ROWS;
  const aligns = useMemo(() => columns.map((_, i) => (isNumeric(table, i) ? "number" : "")), [table]);
  return html`
    <div class="preview" tabindex="0" role="region" aria-label="Table preview">
      <table>
        <thead><tr>${columns.map((name, i) => html`<th scope="col" class=${aligns[i]}>${name}</th>`)}</tr></thead>
        <tbody>
          ${rows.slice(0, SHOWN_ROWS).map((row) => html`
            <tr>${row.map((cell, i) => html`<td class=${aligns[i]}>${cell === null ? "" : String(cell)}</td>`)}</tr>`)}
        </tbody>
      </table>
    </div>
    <p class="hint">${rows.length.toLocaleString("en")} ${rows.length === 1 ? "row" : "rows"}, ${columns.length}
      ${columns.length === 1 ? " column" : " columns"}${more > 0 ? `; the first ${SHOWN_ROWS} are shown` : ""}</p>
  `;
}
