/**
 * Make a call from the page and show what came back.
 *
 * @import {Operation, Parameter} from "./document.js"
 * @import {Schema} from "../app/schema.js"
 */

import { html, useEffect, useRef, useState } from "../vendor/htm-preact.module.js";
import { size } from "../app/format.js";
import { typeWords } from "../app/schema.js";
import { buildCall, curlOf } from "./document.js";

/** A long-poll may take 55 s. */
const TIMEOUT_MS = 70_000;
/** More of an answer than this is cut: a page is no viewer of large files. */
const MAX_SHOWN_BYTES = 200_000;

/** @typedef {{status: string, ok: boolean, ms: number, headers: [string, string][], text: string, file: {url: string, words: string} | null}} Shown */

/**
 * @param {{operation: Operation, root: Schema, token: string}} props
 */
export function TryIt({ operation, root, token }) {
  const { id, parameters, body } = operation;
  const isUpload = body?.mediaType === "multipart/form-data";
  const [values, setValues] = useState(() =>
    Object.fromEntries(parameters.map((parameter) => [`${parameter.in}.${parameter.name}`, parameter.example])));
  const [text, setText] = useState(() => (body && !isUpload ? JSON.stringify(body.example ?? {}, null, 2) : ""));
  const [file, setFile] = useState(/** @type {File | null} */ (null));
  const [shown, setShown] = useState(/** @type {Shown | null} */ (null));
  const [fault, setFault] = useState("");
  const running = useRef(/** @type {AbortController | null} */ (null));
  const [busy, setBusy] = useState(false);

  useEffect(() => () => running.current?.abort(), []);
  useEffect(() => () => void (shown?.file && URL.revokeObjectURL(shown.file.url)), [shown]);

  const sent = body && !isUpload && text.trim() ? text : null;
  const call = buildCall(operation, values);

  const run = async (/** @type {Event} */ event) => {
    event.preventDefault();
    const missing = parameters.find(({ required, in: place, name }) => required && !values[`${place}.${name}`]);
    if (missing) return setFault(`${missing.name} is needed.`);
    if (!operation.isPublic && !token) return setFault("This call needs a token: give one at the top of the page.");
    setFault("");
    setBusy(true);
    const controller = (running.current = new AbortController());
    try {
      setShown(await send(operation, call, token, isUpload ? file : sent, controller.signal));
    } catch (error) {
      setShown(null);
      if (!controller.signal.aborted) setFault(error instanceof Error && error.name === "TimeoutError" ? "There was no answer in time." : "The server cannot be reached.");
    }
    setBusy(false);
  };

  return html`
    <form class="try" onSubmit=${run} novalidate aria-label="Try ${operation.method} ${operation.path}">
      ${parameters.length > 0 && html`<div class="try-fields">${parameters.map((parameter) => html`
        <${ParameterField} id=${id} parameter=${parameter} root=${root} value=${values[`${parameter.in}.${parameter.name}`]}
          onInput=${(/** @type {string} */ value) => setValues((before) => ({ ...before, [`${parameter.in}.${parameter.name}`]: value }))} />`)}</div>`}
      ${body && (isUpload
        ? html`<div class="field"><label for="${id}-file">File</label>
            <input id="${id}-file" type="file" onChange=${(/** @type {any} */ event) => setFile(event.target.files[0] ?? null)} /></div>`
        : html`<div class="field"><label for="${id}-body">Body (JSON)</label>
            <textarea id="${id}-body" class="mono" spellcheck="false" rows=${Math.min(16, text.split("\n").length + 1)} value=${text}
              onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea></div>`)}
      <div class="try-actions">
        <button type="submit" class="button button-main" disabled=${busy}>${busy ? "Waiting…" : "Send"}</button>
        ${busy && html`<button type="button" class="button" onClick=${() => running.current?.abort()}>Stop</button>`}
        <details class="curl"><summary>As a shell command</summary><pre tabindex="0">${curlOf(operation, call, location.origin, sent)}</pre></details>
      </div>
      <div role="alert" class=${fault ? "notice notice-bad" : ""}>${fault}</div>
      <div role="status">${shown && html`<${AnswerView} shown=${shown} />`}</div>
    </form>
  `;
}

/**
 * @param {{id: string, parameter: Parameter, root: Schema, value: string, onInput: (value: string) => void}} props
 */
function ParameterField({ id, parameter, root, value, onInput }) {
  const key = `${id}-${parameter.in}-${parameter.name}`;
  return html`
    <div class="field">
      <label for=${key}>${parameter.name}${parameter.required ? " *" : ""} <span class="hint">${parameter.in}</span></label>
      <input id=${key} type="text" class="mono" autocomplete="off" spellcheck="false" value=${value} required=${parameter.required}
        placeholder=${typeWords(parameter.schema, root)} onInput=${(/** @type {any} */ event) => onInput(event.target.value)} />
    </div>
  `;
}

/** @param {{shown: Shown}} props */
function AnswerView({ shown }) {
  return html`
    <div class="answer">
      <p><strong class=${shown.ok ? "good" : "bad"}>${shown.status}</strong> <span class="hint">in ${Math.round(shown.ms)} ms</span></p>
      ${shown.file ? html`<p><a href=${shown.file.url} download>Save the answer</a> <span class="hint">${shown.file.words}</span></p>` : html`<pre tabindex="0" aria-label="Answer">${shown.text || "(empty)"}</pre>`}
      <details><summary>Headers</summary><pre tabindex="0">${shown.headers.map(([name, value]) => `${name}: ${value}`).join("\n")}</pre></details>
    </div>
  `;
}

/**
 * @param {Operation} operation
 * @param {{url: string, headers: Record<string, string>}} call
 * @param {string} token
 * @param {File | string | null} body
 * @param {AbortSignal} signal
 * @returns {Promise<Shown>}
 */
async function send(operation, { url, headers }, token, body, signal) {
  /** @type {Record<string, string>} */
  const sent = { Accept: "application/json", ...headers };
  if (!operation.isPublic) sent.Authorization = `Bearer ${token}`;
  /** @type {BodyInit | undefined} */
  let payload;
  if (typeof body === "string") {
    payload = body;
    sent["Content-Type"] = "application/json";
  } else if (body) {
    payload = new FormData();
    payload.append("file", body, body.name);
  }
  const began = performance.now();
  const response = await fetch(url, {
    method: operation.method,
    headers: sent,
    body: payload,
    credentials: "omit",
    cache: "no-store",
    signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
  });
  const blob = await response.blob();
  const ms = performance.now() - began;
  const type = response.headers.get("Content-Type") ?? "";
  const isText = /json|^text\/|yaml|xml/.test(type) && blob.size <= MAX_SHOWN_BYTES;
  return {
    status: `${response.status} ${response.statusText}`.trim(),
    ok: response.ok,
    ms,
    headers: [...response.headers],
    text: isText || !blob.size ? pretty(await blob.text(), type) : "",
    // As plain bytes, so that a browser saves it and never shows it as a page of ours.
    file: isText || !blob.size ? null : { url: URL.createObjectURL(new Blob([blob], { type: "application/octet-stream" })), words: `${type || "no type"}, ${size(blob.size)}` },
  };
}

/**
 * @param {string} text
 * @param {string} type
 */
function pretty(text, type) {
  if (!type.includes("json")) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
