/**
 * From an error to the fields it names. Pure.
 *
 * @typedef {{field: string, message: string}} FieldFault `field` is "" for what concerns the whole form
 */

/**
 * Assign each entry of a problem document to the field of the form that shows it: the one it names, or the nearest
 * around it; what names none concerns the whole form.
 *
 * @param {{message: string, errors?: {field: string, message: string}[]}} error
 * @param {string[]} paths the fields that the form shows, as in `input.sections.0.heading`
 * @returns {FieldFault[]}
 */
export function assignFaults(error, paths) {
  const entries = error.errors ?? [];
  const faults = entries.map(({ field, message }) => {
    const shown = nearest(field, paths) ?? nearest(`input.${field}`, paths);
    return shown === undefined ? { field: "", message: field ? `${field}: ${message}` : message } : { field: shown, message };
  });
  if (!entries.length) return [{ field: "", message: error.message }];
  const hidden = faults.every((fault) => fault.field === "");
  return hidden ? faults : [{ field: "", message: count(faults) }, ...faults];
}

/**
 * @param {FieldFault[]} faults
 * @param {string} path
 */
export function faultsAt(faults, path) {
  return faults.filter((fault) => fault.field === path);
}

/**
 * @param {string} field
 * @param {string[]} paths
 */
function nearest(field, paths) {
  return paths
    .filter((path) => field === path || field.startsWith(`${path}.`))
    .sort((a, b) => b.length - a.length)
    .at(0);
}

/** @param {FieldFault[]} faults */
function count(faults) {
  const fields = new Set(faults.map((fault) => fault.field).filter(Boolean)).size;
  return fields === 1 ? "One field needs another look." : `${fields} fields need another look.`;
}
