/**
 * The API's documentation: the server's own OpenAPI document, shown and ready to be tried.
 *
 * @import {Schema} from "./app/schema.js"
 */

import { html, render, useEffect, useMemo, useState } from "./vendor/htm-preact.module.js";
import { readOperations } from "./api/document.js";
import { OperationView } from "./api/operation_view.js";
import { Fields } from "./api/schema_view.js";
import { Prose } from "./app/prose.js";
import { dropToken, keepToken, takeToken } from "./app/session.js";

const DOCUMENT = "/api/openapi.json";

function ApiDocs() {
  const [root, setRoot] = useState(/** @type {Schema | null} */ (null));
  const [fault, setFault] = useState("");
  const [token, setToken] = useState(takeToken);

  useEffect(() => {
    fetch(DOCUMENT, { signal: AbortSignal.timeout(20_000) })
      .then(async (response) => {
        if (!response.ok) throw new Error(`the server answered ${response.status}`);
        setRoot(await response.json());
      })
      .catch((error) => setFault(`The document could not be read: ${error.message}`));
  }, []);
  useEffect(() => {
    // What the address names is there only now.
    if (root && location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  }, [root]);

  const changeToken = (/** @type {string} */ given) => {
    setToken(given);
    if (given) keepToken(given);
    else dropToken();
  };
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <header class="top">
      <a class="brand" href="/"><img src="/static/icon.svg" alt="" width="28" height="28" /> Tidings <span class="hint">API</span></a>
      <form onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}><label class="token"><span>Token</span>
        <input type="password" autocomplete="off" spellcheck="false" placeholder="eyJhbGciOi…" value=${token}
          onInput=${(/** @type {any} */ event) => changeToken(event.target.value.trim())} />
      </label></form>
    </header>
    ${fault && html`<p class="notice notice-bad" role="alert">${fault}</p>`}
    ${root ? html`<${Reference} root=${root} token=${token} />` : !fault && html`<p class="loading hint">Reading the document…</p>`}
  `;
}

/**
 * @param {{root: Schema, token: string}} props
 */
function Reference({ root, token }) {
  const groups = useMemo(() => readOperations(root), [root]);
  const schemas = useMemo(() => Object.entries(root.components?.schemas ?? {}).sort(([a], [b]) => a.localeCompare(b)), [root]);
  const [filter, setFilter] = useState("");
  const wanted = filter.trim().toLowerCase();
  const shown = useMemo(
    () =>
      groups
        .map((group) => ({
          ...group,
          operations: group.operations.filter((it) => [it.method, it.path, ...it.aliases.map(({ path }) => path), it.summary].join(" ").toLowerCase().includes(wanted)),
        }))
        .filter((group) => group.operations.length),
    [groups, wanted],
  );
  return html`
    <div class="layout">
      <nav aria-label="Operations">
        <input type="text" aria-label="Filter the operations" placeholder="Filter" autocomplete="off" value=${filter}
          onInput=${(/** @type {any} */ event) => setFilter(event.target.value)} />
        ${shown.map((group) => html`
          <h2>${group.name}</h2>
          <ul>${group.operations.map((it) => html`
            <li><a href="#${it.id}"><span class="method method-${it.method.toLowerCase()}">${it.method}</span><span>${it.path}</span></a></li>`)}
          </ul>`)}
        ${!shown.length && html`<p class="hint">Nothing matches.</p>`}
        ${!wanted && html`<h2>schemas</h2><ul class="schema-links">${schemas.map(([name]) => html`<li><a href="#schema-${name}">${name}</a></li>`)}</ul>`}
      </nav>
      <main id="main" tabindex="-1">
        <h1>${root.info?.title} API <span class="version">${root.info?.version}</span></h1>
        <div class="prose lead"><${Prose} text=${root.info?.description ?? ""} /></div>
        <p><a href=${DOCUMENT} download="openapi.json">Save the OpenAPI ${root.openapi} document</a></p>
        ${shown.map((group) => html`
          <section aria-labelledby="tag-${group.name}">
            <h2 class="group" id="tag-${group.name}">${group.name}</h2>
            ${group.description && html`<p class="lead">${group.description}</p>`}
            ${group.operations.map((it) => html`<${OperationView} key=${it.id} operation=${it} root=${root} token=${token} />`)}
          </section>`)}
        ${!wanted && html`
          <section aria-labelledby="tag-schemas">
            <h2 class="group" id="tag-schemas">schemas</h2>
            ${schemas.map(([name, schema]) => html`
              <article class="card" id="schema-${name}">
                <h3>${name}</h3>
                ${schema.description && html`<div class="prose"><${Prose} text=${schema.description} /></div>`}
                <${Fields} schema=${schema} root=${root} />
              </article>`)}
          </section>`}
      </main>
    </div>
  `;
}

render(html`<${ApiDocs} />`, /** @type {Element} */ (document.getElementById("app")));
