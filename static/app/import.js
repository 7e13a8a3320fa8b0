/**
 * Files of the user's computer to sections of a report, read in pieces with progress.
 *
 * @import {Table} from "./csv.js"
 *
 * @typedef {{heading: string, markdown: string, table: Table | null, source: string}} ImportedSection
 */

import { CsvReader } from "./csv.js";
import { splitMarkdown } from "./markdown.js";

export const ACCEPT = ".csv,.tsv,.md,.markdown,.txt,text/csv,text/markdown,text/plain";
/** What can be meant for a report; more text than this the server would refuse. */
const MAX_CSV_BYTES = 20_000_000;
const MAX_MARKDOWN_BYTES = 2_000_000;

/**
 * @param {File} file
 * @param {(fraction: number) => void} onProgress told how much has been read, 0–1
 * @returns {Promise<{title: string | null, sections: ImportedSection[]}>}
 * @throws {Error} with a message for people
 */
export async function importFile(file, onProgress) {
  const [, stem, ending] = /^(.*?)(?:\.([^.]*))?$/s.exec(file.name) ?? ["", file.name, ""];
  const name = stem || file.name;
  const kind = (ending ?? "").toLowerCase();
  if (kind === "csv" || kind === "tsv" || file.type === "text/csv") {
    limit(file, MAX_CSV_BYTES);
    const reader = new CsvReader();
    await readPieces(file, onProgress, (text) => reader.push(text));
    const table = reader.end();
    return { title: null, sections: [{ heading: titleOf(name), markdown: "", table, source: file.name }] };
  }
  if (["md", "markdown", "txt"].includes(kind) || file.type.startsWith("text/")) {
    limit(file, MAX_MARKDOWN_BYTES);
    let text = "";
    await readPieces(file, onProgress, (piece) => (text += piece));
    const { title, sections } = splitMarkdown(text, titleOf(name));
    if (!sections.length && !title) throw new Error("The file is empty.");
    return { title, sections: sections.map((section) => ({ ...section, table: null, source: file.name })) };
  }
  throw new Error("Only CSV and Markdown files can be read.");
}

/**
 * @param {File} file
 * @param {(fraction: number) => void} onProgress
 * @param {(text: string) => void} take
 */
async function readPieces(file, onProgress, take) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const decode = (/** @type {Uint8Array | undefined} */ bytes) => {
    try {
      return decoder.decode(bytes, { stream: bytes !== undefined });
    } catch {
      throw new Error("The file is not UTF-8 text.");
    }
  };
  const reader = file.stream().getReader();
  let read = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    take(decode(value));
    read += value.byteLength;
    onProgress(file.size ? read / file.size : 1);
    await nextFrame(); // the bar is drawn, and the page stays alive
  }
  take(decode(undefined));
  onProgress(1);
}

/** Resolve when the page may have been drawn; pages in the background are not drawn at all. */
function nextFrame() {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 50);
    requestAnimationFrame(() => {
      clearTimeout(timer);
      resolve(undefined);
    });
  });
}

/**
 * @param {File} file
 * @param {number} bytes
 */
function limit(file, bytes) {
  if (file.size > bytes) throw new Error(`The file is larger than ${Math.round(bytes / 1_000_000)} MB.`);
}

/**
 * A heading from a file's name: `sales-by_region` becomes `Sales by region`.
 * @param {string} name
 */
function titleOf(name) {
  const words = name.replace(/[-_]+/g, " ").trim() || name;
  return (words[0].toUpperCase() + words.slice(1)).slice(0, 200);
}
