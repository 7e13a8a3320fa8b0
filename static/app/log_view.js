/**
 * Log and output as they grow. Each keeps to its end unless the reader has scrolled away from it.
 *
 * @import {LogLine} from "./book.js"
 * @import {OutputPart} from "./output.js"
 */

import { html, useLayoutEffect, useRef } from "../vendor/htm-preact.module.js";
import { clock } from "./format.js";

const LEVELS = new Set(["debug", "info", "warning", "error", "state"]);

/** @param {{lines: LogLine[], cut: boolean}} props */
export function LogView({ lines, cut }) {
  const { box, onScroll } = useFollowedEnd(lines);
  return html`
    <div class="card">
      <h2>Log</h2>
      <div class="scroll log" role="log" aria-label="Log" aria-live="off" tabindex="0" ref=${box} onScroll=${onScroll}>
        ${cut && html`<p class="hint">Earlier entries are not shown.</p>`}
        ${!lines.length && html`<p class="hint">Nothing yet.</p>`}
        <ol>
          ${lines.map((line) => html`
            <li key=${line.key} class="log-${LEVELS.has(line.level) ? line.level : "info"}">
              <time datetime=${line.at}>${clock(line.at)}</time><span>${line.text}</span>
            </li>`)}
        </ol>
      </div>
    </div>
  `;
}

/** @param {{parts: OutputPart[]}} props */
export function OutputView({ parts }) {
  const { box, onScroll } = useFollowedEnd(parts);
  return html`
    <div class="card">
      <h2>Output</h2>
      <pre class="scroll output" tabindex="0" aria-label="Output" ref=${box} onScroll=${onScroll}>${parts.map(({ attempt, text }, i) => html`${i > 0 && html`<span class="attempt-mark">attempt ${attempt}</span>`}${text}`)}</pre>
    </div>
  `;
}

/** @param {unknown} content */
function useFollowedEnd(content) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const atEnd = useRef(true);
  useLayoutEffect(() => {
    if (atEnd.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [content]);
  const onScroll = () => {
    const at = box.current;
    if (at) atEnd.current = at.scrollHeight - at.scrollTop - at.clientHeight < 24;
  };
  return { box, onScroll };
}
