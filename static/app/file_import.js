/**
 * Choosing or dropping CSV and Markdown files, with a bar for each while it is read.
 */

import { html, useState } from "../vendor/htm-preact.module.js";
import { ACCEPT, importFile } from "./import.js";

/** @typedef {{key: number, name: string, fraction: number, error: string, done: boolean}} Reading */

let lastKey = 0;

/**
 * @param {{onImported: (imported: Awaited<ReturnType<typeof importFile>>) => void}} props
 */
export function FileImport({ onImported }) {
  const [readings, setReadings] = useState(/** @type {Reading[]} */ ([]));
  const [over, setOver] = useState(false);

  const read = async (/** @type {File} */ file) => {
    const key = ++lastKey;
    const change = (/** @type {Partial<Reading>} */ values) =>
      setReadings((before) => before.map((reading) => (reading.key === key ? { ...reading, ...values } : reading)));
    setReadings((before) => [...before.slice(-4), { key, name: file.name, fraction: 0, error: "", done: false }]);
    try {
      onImported(await importFile(file, (fraction) => change({ fraction })));
      change({ done: true });
    } catch (error) {
      change({ error: error instanceof Error ? error.message : String(error) });
    }
  };
  // One after the other, so that their sections come in the order of choosing.
  const readAll = async (/** @type {FileList | undefined | null} */ files) => {
    for (const file of [...(files ?? [])]) await read(file);
  };

  return html`
    <div class="drop ${over ? "drop-over" : ""}"
      onDragOver=${(/** @type {DragEvent} */ event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave=${() => setOver(false)}
      onDrop=${(/** @type {DragEvent} */ event) => {
        event.preventDefault();
        setOver(false);
        void readAll(event.dataTransfer?.files);
      }}>
      <label class="button">
        Choose files
        <input type="file" class="visually-hidden" multiple accept=${ACCEPT} aria-describedby="import-hint"
          onChange=${async (/** @type {any} */ event) => {
            const input = event.target;
            await readAll(input.files);
            input.value = "";
          }} />
      </label>
      <p id="import-hint">or drop them here: a CSV becomes a table, a Markdown file its sections. They are read in this browser.</p>
    </div>
    <ul class="readings" aria-live="polite">
      ${readings.map((reading) => html`
        <li key=${reading.key} class=${reading.error ? "bad" : ""}>
          <span>${reading.name}</span>
          ${reading.error
            ? html`<span class="reading-end">${reading.error}</span>`
            : reading.done
              ? html`<span class="reading-end">read</span>`
              : html`<progress max="1" value=${reading.fraction} aria-label="Reading ${reading.name}"></progress>`}
        </li>`)}
    </ul>
  `;
}
