/**
 * What to call a job, so that ten alike can be told apart. Pure.
 *
 * @import {Job} from "../tidings/types.js"
 */

const MAX_SUMMARY_CHARACTERS = 80;
const MAX_VALUE_CHARACTERS = 24;

/**
 * What a job is about, in a line: its title, else its type.
 * @param {Job} job
 */
export function nameOfJob(job) {
  const title = job.metadata?.title ?? job.input?.title;
  if (typeof title === "string" && title) return title;
  if (job.type === "demo.steps" && job.input?.steps) return `${job.input.steps.toLocaleString("en")} steps`;
  return job.type;
}

/**
 * What stands below the name: the type unless it is the name already, and the tags; without either, the input in short.
 * @param {Job} job
 */
export function aboutJob(job) {
  const named = nameOfJob(job) !== job.type;
  const tags = job.tags?.join(", ");
  const summary = job.type === "flow" && Array.isArray(job.input?.steps) ? stepsOf(job.input.steps) : summaryOf(job.input);
  return [named && job.type, tags || (!named && summary)].filter(Boolean).join(" · ");
}

/**
 * The end of the id's random part: the beginning is the time, alike in jobs that were submitted together.
 * @param {string} id
 */
export function shortId(id) {
  return id.replace(/s[0-9]+$/, "").slice(-6);
}

/**
 * @param {Record<string, any> | null | undefined} input
 * @returns {string} such as `rows 3, region north`
 */
function summaryOf(input) {
  const words = Object.entries(input ?? {})
    .filter(([, value]) => ["string", "number", "boolean"].includes(typeof value) && value !== "")
    .map(([name, value]) => `${name} ${cut(String(value), MAX_VALUE_CHARACTERS)}`);
  return cut(words.join(", "), MAX_SUMMARY_CHARACTERS);
}

/**
 * @param {{name?: string}[]} steps
 * @returns {string} such as `2 steps: fetch, count`
 */
function stepsOf(steps) {
  const names = steps.slice(0, MAX_SUMMARY_CHARACTERS).map((step) => step?.name).filter(Boolean);
  const count = `${steps.length.toLocaleString("en")} ${steps.length === 1 ? "step" : "steps"}`;
  return cut(names.length ? `${count}: ${names.join(", ")}` : count, MAX_SUMMARY_CHARACTERS);
}

/**
 * @param {string} text
 * @param {number} characters
 */
function cut(text, characters) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > characters ? `${line.slice(0, characters - 1)}…` : line;
}
