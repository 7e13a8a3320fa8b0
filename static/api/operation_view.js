/**
 * One operation: what it does, takes and answers, and a way to try it.
 *
 * @import {Operation} from "./document.js"
 * @import {Schema} from "../app/schema.js"
 */

import { html, useState } from "../vendor/htm-preact.module.js";
import { Prose } from "../app/prose.js";
import { Fields, Meaning, TypeWords } from "./schema_view.js";
import { TryIt } from "./try_it.js";

/**
 * @param {{operation: Operation, root: Schema, token: string}} props
 */
export function OperationView({ operation, root, token }) {
  const [trying, setTrying] = useState(false);
  const { id, method, path, summary, description, aliases, parameters, body, answers } = operation;
  return html`
    <article class="operation card" id=${id} aria-labelledby="${id}-title">
      <header>
        <h3 id="${id}-title"><span class="method method-${method.toLowerCase()}">${method}</span> <code class="path">${path}</code></h3>
        <button type="button" class="button" aria-expanded=${String(trying)} aria-controls="${id}-try"
          onClick=${() => setTrying(!trying)}>${trying ? "Close" : "Try it"}</button>
      </header>
      ${aliases.map((alias) => html`<p class="hint" id=${alias.id}>Also at <code>${alias.path}</code></p>`)}
      <p class="summary">${summary}${operation.isPublic && html` <span class="tag">no token needed</span>`}</p>
      ${description && html`<div class="prose"><${Prose} text=${description} /></div>`}
      <div id="${id}-try" hidden=${!trying}>${trying && html`<${TryIt} operation=${operation} root=${root} token=${token} />`}</div>
      ${parameters.length > 0 && html`
        <details><summary>Parameters <span class="count">${parameters.length}</span></summary>
          <div class="table" tabindex="0" role="region" aria-label="Parameters">
            <table>
              <thead><tr><th scope="col">Name</th><th scope="col">Type</th><th scope="col">Meaning</th></tr></thead>
              <tbody>
                ${parameters.map((parameter) => html`
                  <tr>
                    <th scope="row"><code>${parameter.name}</code> <span class="hint">${parameter.in}</span>
                      ${parameter.required && html`<span class="required">required</span>`}</th>
                    <td><${TypeWords} schema=${parameter.schema} root=${root} /></td>
                    <td>${parameter.description && html`<${Prose} text=${parameter.description} />`}<${Meaning} schema=${{ ...parameter.schema, description: "" }} root=${root} /></td>
                  </tr>`)}
              </tbody>
            </table>
          </div>
        </details>`}
      ${body && html`
        <details><summary>Body <span class="count">${body.mediaType}</span></summary>
          <${Fields} schema=${body.schema} root=${root} />
        </details>`}
      <details><summary>Answers <span class="count">${answers.map((answer) => answer.status).join(" · ")}</span></summary>
        <dl class="answers">
          ${answers.map((answer) => html`
            <div>
              <dt class="status status-${answer.status[0]}">${answer.status}</dt>
              <dd>
                <${Prose} text=${answer.description} />
                ${answer.content.map((content) => html`<p class="hint">${content.mediaType} <${TypeWords} schema=${content.schema} root=${root} /></p>`)}
                ${answer.headers.length > 0 && html`<p class="hint">Headers: ${answer.headers.join(", ")}</p>`}
              </dd>
            </div>`)}
        </dl>
      </details>
    </article>
  `;
}
