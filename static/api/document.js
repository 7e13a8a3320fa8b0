/**
 * An OpenAPI 3.1 document as lists to show: operations by tag, their parameters, bodies and answers. Pure.
 *
 * @typedef {import("../app/schema.js").Schema} Schema
 *
 * @typedef {object} Parameter
 * @property {string} name
 * @property {"path" | "query" | "header"} in
 * @property {boolean} required
 * @property {string} description
 * @property {Schema} schema
 * @property {string} example what to begin with, "" when there is nothing to go by
 *
 * @typedef {object} Content
 * @property {string} mediaType
 * @property {Schema} schema
 * @property {unknown} [example]
 *
 * @typedef {object} Operation
 * @property {string} id also the anchor
 * @property {string} method upper case
 * @property {string} path
 * @property {{id: string, path: string}[]} aliases where the same is to be had too
 * @property {string} summary
 * @property {string} description
 * @property {string} tag
 * @property {boolean} isPublic needs no token
 * @property {Parameter[]} parameters
 * @property {Content | null} body
 * @property {boolean} bodyRequired
 * @property {{status: string, description: string, headers: string[], content: Content[]}[]} answers
 */

import { exampleOf, resolve } from "../app/schema.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

/**
 * @param {Schema} document
 * @returns {{name: string, description: string, operations: Operation[]}[]} by tag, in the document's order
 */
export function readOperations(document) {
  /** @type {Map<string, {name: string, description: string, operations: Operation[]}>} */
  const groups = new Map();
  for (const { name, description } of document.tags ?? []) groups.set(name, { name, description: description ?? "", operations: [] });
  for (const [path, item] of Object.entries(document.paths ?? {})) {
    for (const method of METHODS.filter((known) => item[known])) {
      const operation = readOperation(document, method, path, item);
      const group = groups.get(operation.tag) ?? { name: operation.tag, description: "", operations: [] };
      group.operations.push(operation);
      groups.set(operation.tag, group);
    }
  }
  return [...groups.values()]
    .filter((group) => group.operations.length)
    .map((group) => ({ ...group, operations: withoutAliases(group.operations) }));
}

/**
 * What is at `/x` and at `/api/x` alike becomes one operation, the shorter, which names the other.
 * @param {Operation[]} operations
 */
function withoutAliases(operations) {
  const key = (/** @type {Operation} */ it, path = it.path) => `${it.method} ${path} ${it.summary}`;
  const byKey = new Map(operations.map((it) => [key(it), it]));
  const main = (/** @type {Operation} */ it) => (it.path.startsWith("/api/") ? byKey.get(key(it, it.path.slice("/api".length))) : undefined);
  for (const it of operations) main(it)?.aliases.push({ id: it.id, path: it.path });
  return operations.filter((it) => !main(it));
}

/**
 * @param {Schema} document
 * @param {string} method
 * @param {string} path
 * @param {Schema} item
 * @returns {Operation}
 */
function readOperation(document, method, path, item) {
  const it = item[method];
  const security = it.security ?? document.security ?? [];
  const body = it.requestBody ? resolve(it.requestBody, document) : null;
  return {
    id: it.operationId ?? `${method}${path}`.replace(/[^A-Za-z0-9]+/g, "-"),
    method: method.toUpperCase(),
    path,
    aliases: [],
    summary: it.summary ?? "",
    description: it.description ?? "",
    tag: it.tags?.[0] ?? "other",
    isPublic: security.length === 0,
    parameters: [...(item.parameters ?? []), ...(it.parameters ?? [])].map((given) => readParameter(document, given)),
    body: readContent(document, body?.content)[0] ?? null,
    bodyRequired: body?.required ?? false,
    answers: Object.entries(it.responses ?? {}).map(([status, given]) => {
      const answer = resolve(given, document);
      return {
        status,
        description: answer.description ?? "",
        headers: Object.keys(answer.headers ?? {}),
        content: readContent(document, answer.content),
      };
    }),
  };
}

/**
 * @param {Schema} document
 * @param {Schema} given
 * @returns {Parameter}
 */
function readParameter(document, given) {
  const it = resolve(given, document);
  return {
    name: it.name,
    in: it.in,
    required: it.required ?? false,
    description: it.description ?? "",
    schema: it.schema ?? {},
    example: it.in === "path" || it.required ? asText(it.example) : "",
  };
}

/**
 * @param {Schema} document
 * @param {Schema | undefined} content
 * @returns {Content[]}
 */
function readContent(document, content) {
  return Object.entries(content ?? {}).map(([mediaType, it]) => {
    const named = Object.values(it.examples ?? {})[0];
    const example = it.example ?? (named && resolve(named, document).value);
    return { mediaType, schema: it.schema ?? {}, example: example ?? exampleOf(it.schema ?? {}, document) };
  });
}

/**
 * The address and headers of a call.
 * @param {Operation} operation
 * @param {Record<string, string>} values by `<in>.<name>`; an empty one is left out
 * @returns {{url: string, headers: Record<string, string>}}
 */
export function buildCall(operation, values) {
  const given = (/** @type {Parameter} */ { in: place, name }) => values[`${place}.${name}`] ?? "";
  const query = new URLSearchParams();
  /** @type {Record<string, string>} */
  const headers = {};
  let path = operation.path;
  for (const parameter of operation.parameters) {
    const value = given(parameter);
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (value !== "" && parameter.in === "query") query.append(parameter.name, value);
    else if (value !== "" && parameter.in === "header") headers[parameter.name] = value;
  }
  return { url: query.size ? `${path}?${query}` : path, headers };
}

/**
 * The same call for a shell; the token is named, never shown.
 * @param {Operation} operation
 * @param {{url: string, headers: Record<string, string>}} call
 * @param {string} origin
 * @param {string | null} body
 */
export function curlOf(operation, { url, headers }, origin, body) {
  const words = ["curl"];
  if (operation.method !== "GET") words.push(`-X ${operation.method}`);
  words.push(quote(origin + url));
  if (!operation.isPublic) words.push('-H "Authorization: Bearer $TIDINGS_TOKEN"');
  for (const [name, value] of Object.entries(headers)) words.push(`-H ${quote(`${name}: ${value}`)}`);
  if (operation.body?.mediaType === "multipart/form-data") words.push("-F file=@FILE");
  else if (body !== null) words.push("-H 'Content-Type: application/json'", `-d ${quote(body)}`);
  return words.join(" \\\n  ");
}

/** @param {string} text */
function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** @param {unknown} value */
function asText(value) {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}
