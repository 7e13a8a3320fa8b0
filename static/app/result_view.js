/**
 * What came of a job: its file to download, its result as JSON, or why there is none.
 *
 * @import {JobBook} from "./book.js"
 * @import {Job, StoredFile} from "../tidings/types.js"
 */

import { html, useState } from "../vendor/htm-preact.module.js";
import { size } from "./format.js";

/** Long enough for every browser to have begun the download. */
const KEEP_URL_MS = 60_000;

/** @param {{job: Job, book: JobBook}} props */
export function ResultView({ job, book }) {
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState("");
  const act = async (/** @type {() => Promise<void>} */ action) => {
    setBusy(true);
    setFault("");
    await action().catch((error) => setFault(error.message));
    setBusy(false);
  };

  if (job.status !== "completed") {
    return html`
      <div class="card result-bad">
        <h2>${job.status === "failed" ? "Why it failed" : "The last attempt"}</h2>
        <p><code>${job.error?.code}</code> ${job.error?.message}</p>
        ${job.error?.type && html`<p class="hint">${job.error.type}</p>`}
      </div>
    `;
  }
  const file = fileOf(job.result);
  return html`
    <div class="card result">
      <h2>Result</h2>
      ${file && html`
        <div class="file">
          <span class="file-kind" aria-hidden="true">${endingOf(file.name)}</span>
          <span class="file-name"><strong>${file.name}</strong><span class="hint">${size(file.size_bytes)}</span></span>
          <button type="button" class="button button-main" disabled=${busy} onClick=${() => act(() => download(book, file))}>
            ${busy ? "Downloading…" : "Download"}
          </button>
        </div>`}
      <div role="alert" class=${fault ? "notice notice-bad" : ""}>${fault}</div>
      ${job.result_ref
        ? html`<button type="button" class="button" disabled=${busy} onClick=${() => act(() => book.loadResult(job.id))}>Load the result</button>`
        : html`<${Json} value=${job.result} folded=${file !== null} />`}
    </div>
  `;
}

/** @param {{value: unknown, folded: boolean}} props */
function Json({ value, folded }) {
  const text = JSON.stringify(value, null, 2) ?? "null";
  if (!folded) return html`<pre class="scroll" tabindex="0" aria-label="Result">${text}</pre>`;
  return html`<details><summary>As JSON</summary><pre class="scroll" tabindex="0" aria-label="Result">${text}</pre></details>`;
}

/**
 * @param {any} result
 * @returns {StoredFile | null}
 */
function fileOf(result) {
  const file = result?.file;
  return typeof file?.url === "string" && typeof file.name === "string" ? file : null;
}

/**
 * Fetch the file with the token and hand it to the browser as a download.
 * @param {JobBook} book
 * @param {StoredFile} file
 */
async function download(book, file) {
  const url = URL.createObjectURL(await book.tidings.download(file));
  const link = document.createElement("a");
  link.href = url;
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), KEEP_URL_MS);
}

/** @param {string} name */
function endingOf(name) {
  return (/\.([a-z0-9]{1,5})$/i.exec(name)?.[1] ?? "file").toUpperCase();
}
