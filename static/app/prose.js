/** Text as docstrings have it: paragraphs, and code in single or double backticks. It is inserted as text. */

import { html } from "../vendor/htm-preact.module.js";

/** @param {{text: string}} props */
export function Prose({ text }) {
  return singleTicks(text).split(/\n{2,}/).filter(Boolean).map((paragraph) => html`
    <p>${paragraph.split(/`([^`]+)`/).map((part, i) => (i % 2 ? html`<code>${part}</code>` : part))}</p>`);
}

/** @param {string} text */
export function singleTicks(text) {
  return text.replaceAll("``", "`");
}
