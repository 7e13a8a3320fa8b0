/**
 * A JSON Schema as a table of its fields; what it refers to is a link to its own table.
 *
 * @import {Schema} from "../app/schema.js"
 */

import { html } from "../vendor/htm-preact.module.js";
import { Prose } from "../app/prose.js";
import { refName, resolve, typeWords } from "../app/schema.js";

/**
 * @param {{schema: Schema, root: Schema}} props
 */
export function TypeWords({ schema, root }) {
  const ref = referredBy(schema);
  const words = typeWords(schema, root);
  if (!ref) return html`<code class="type">${words}</code>`;
  const [before, after] = words.split(refName(ref), 2);
  return html`<code class="type">${before}<a href="#schema-${refName(ref)}">${refName(ref)}</a>${after}</code>`;
}

/**
 * @param {{schema: Schema, root: Schema}} props
 */
export function Fields({ schema, root }) {
  const it = resolve(schema, root);
  const fields = Object.entries(it.properties ?? {});
  if (!fields.length) return html`<p><${TypeWords} schema=${schema} root=${root} /></p>`;
  const required = new Set(it.required ?? []);
  return html`
    <div class="table" tabindex="0" role="region" aria-label="Fields">
      <table>
        <thead><tr><th scope="col">Field</th><th scope="col">Type</th><th scope="col">Meaning</th></tr></thead>
        <tbody>
          ${fields.map(([name, field]) => html`
            <tr>
              <th scope="row"><code>${name}</code>${required.has(name) && html`<span class="required">required</span>`}</th>
              <td><${TypeWords} schema=${field} root=${root} /></td>
              <td><${Meaning} schema=${field} root=${root} /></td>
            </tr>`)}
        </tbody>
      </table>
    </div>
  `;
}

/**
 * @param {{schema: Schema, root: Schema}} props
 */
export function Meaning({ schema, root }) {
  const it = /** @type {Schema} */ (schema);
  const text = it.description ?? (it.$ref ? "" : (resolve(it, root).description ?? ""));
  const notes = [
    it.default !== undefined && it.default !== null && `default ${JSON.stringify(it.default)}`,
    it.pattern && `pattern ${it.pattern}`,
    it.examples?.length && `such as ${JSON.stringify(it.examples[0])}`,
  ].filter(Boolean);
  return html`${text && html`<${Prose} text=${text} />`}${notes.map((note) => html`<p class="hint"><code>${note}</code></p>`)}`;
}

/**
 * The schema that another one refers to: itself, its items or one of its choices.
 * @param {Schema} schema
 * @returns {string | null}
 */
function referredBy(schema) {
  if (!schema || typeof schema !== "object") return null;
  if (schema.$ref) return schema.$ref;
  const inner = [schema.items, ...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])];
  for (const each of inner) {
    const found = each && referredBy(each);
    if (found) return found;
  }
  return null;
}
