/**
 * The first rows of a table, and how large it is.
 *
 * @import {Table} from "./csv.js"
 */

import { html } from "../vendor/htm-preact.module.js";

const SHOWN_ROWS = 4;

/**
 * @param {Table} table
 * @param {number} column
 */
function isNumeric(table, column) {
  return table.rows.some((row) => typeof row[column] === "number");
}

/** @param {{table: Table}} props */
export function TablePreview({ table }) {
  const { columns, rows } = table;
  const more = rows.length - SHOWN_ROWS;
  return html`
    <div class="preview" tabindex="0" role="region" aria-label="Table preview">
      <table>
        <thead><tr>${columns.map((name, i) => html`<th scope="col" class=${isNumeric(table, i) ? "number" : ""}>${name}</th>`)}</tr></thead>
        <tbody>
          ${rows.slice(0, SHOWN_ROWS).map((row) => html`
            <tr>${row.map((cell) => html`<td class=${typeof cell === "number" ? "number" : ""}>${cell === null ? "" : String(cell)}</td>`)}</tr>`)}
        </tbody>
      </table>
    </div>
    <p class="hint">${rows.length.toLocaleString("en")} ${rows.length === 1 ? "row" : "rows"}, ${columns.length}
      ${columns.length === 1 ? " column" : " columns"}${more > 0 ? `; the first ${SHOWN_ROWS} are shown` : ""}</p>
  `;
}
