/** JSON Schema to an example that could be sent, and to a few words. Pure. */

/**
 * @typedef {Record<string, any>} Schema
 */

const MAX_DEPTH = 6;

/**
 * An example value: what the schema itself gives as one, else its default, else the least that has the right form.
 * @param {Schema} schema
 * @param {Schema} [root] where `$ref`s lead
 * @returns {any}
 */
export function exampleOf(schema, root = schema, depth = 0) {
  const it = resolve(schema, root);
  if (it.examples?.length) return it.examples[0];
  if (it.default !== undefined) return it.default;
  if (it.const !== undefined) return it.const;
  if (it.enum?.length) return it.enum[0];
  if (depth > MAX_DEPTH) return null;
  const choice = it.anyOf ?? it.oneOf;
  if (choice?.length) return exampleOf(choice[0], root, depth + 1);
  if (it.allOf?.length) return exampleOf(it.allOf[0], root, depth + 1);
  const type = Array.isArray(it.type) ? it.type[0] : it.type;
  switch (type) {
    case "object": {
      const names = it.required ?? [];
      return Object.fromEntries(names.map((/** @type {string} */ name) => [name, exampleOf(it.properties?.[name] ?? {}, root, depth + 1)]));
    }
    case "array":
      return it.minItems > 0 ? [exampleOf(it.items ?? {}, root, depth + 1)] : [];
    case "string":
      return it.format === "date-time" ? "2030-01-01T00:00:00Z" : it.minLength > 0 ? "text" : "";
    case "integer":
    case "number":
      return it.minimum ?? (it.exclusiveMinimum !== undefined ? it.exclusiveMinimum + 1 : 0);
    case "boolean":
      return false;
    case "null":
      return null;
    default:
      return it.properties ? exampleOf({ ...it, type: "object" }, root, depth + 1) : null;
  }
}

/**
 * A schema in a few words, such as `integer 1–9`, `list of Job`, `"a" | "b"`.
 * @param {Schema | boolean | undefined} schema
 * @param {Schema} root
 * @returns {string}
 */
export function typeWords(schema, root, depth = 0) {
  if (schema === undefined || schema === true || schema === false || depth > MAX_DEPTH) return "anything";
  if (schema.$ref) return refName(schema.$ref);
  const choice = schema.anyOf ?? schema.oneOf;
  if (choice) return choice.map((/** @type {Schema} */ each) => typeWords(each, root, depth + 1)).join(" | ");
  if (schema.allOf?.length === 1) return typeWords(schema.allOf[0], root, depth + 1);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((/** @type {unknown} */ value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `list of ${typeWords(schema.items, root, depth + 1)}`;
  const type = Array.isArray(schema.type) ? schema.type.join(" | ") : schema.type;
  const words = [schema.format && type === "string" ? schema.format : (type ?? "anything"), bounds(schema)];
  return words.filter(Boolean).join(" ");
}

/**
 * @param {Schema} schema
 * @param {Schema} root
 * @returns {Schema}
 */
export function resolve(schema, root) {
  let found = schema;
  for (let steps = 0; found?.$ref && steps < 10; steps++) {
    const path = String(found.$ref).replace(/^#\//, "").split("/").map((part) => part.replace(/~1/g, "/").replace(/~0/g, "~"));
    found = path.reduce((/** @type {any} */ place, part) => place?.[decodeURIComponent(part)], root);
  }
  return found ?? {};
}

/** @param {string} ref */
export function refName(ref) {
  return decodeURIComponent(ref.split("/").at(-1) ?? ref);
}

/** @param {Schema} schema */
function bounds(schema) {
  const least = schema.minimum ?? schema.minLength ?? schema.minItems;
  const most = schema.maximum ?? schema.maxLength ?? schema.maxItems;
  const unit = schema.maxLength !== undefined || schema.minLength !== undefined ? " characters" : "";
  if (least !== undefined && most !== undefined) return `${least}–${most}${unit}`;
  if (least !== undefined) return `≥ ${least}${unit}`;
  return most === undefined ? "" : `≤ ${most}${unit}`;
}
