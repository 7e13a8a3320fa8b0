/**
 * What every form for a new job does: submit once, show what is wrong where it is wrong.
 *
 * @import {Job} from "../tidings/types.js"
 * @import {FieldFault} from "./faults.js"
 */

import { useRef, useState } from "../vendor/htm-preact.module.js";
import { asTidingsError } from "../tidings/errors.js";
import { assignFaults } from "./faults.js";

/**
 * @param {object} options
 * @param {() => Promise<Job>} options.submit
 * @param {() => string[]} options.paths the fields on show
 * @param {(job: Job) => void} options.onSubmitted
 */
export function useForm({ submit, paths, onSubmitted }) {
  const [faults, setFaults] = useState(/** @type {FieldFault[]} */ ([]));
  const [busy, setBusy] = useState(false);
  const form = useRef(/** @type {HTMLFormElement | null} */ (null));

  const onSubmit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    try {
      const job = await submit();
      setFaults([]);
      onSubmitted(job);
    } catch (error) {
      setFaults(assignFaults(asTidingsError(error), paths()));
      requestAnimationFrame(() => {
        /** @type {HTMLElement | null | undefined} */ (form.current?.querySelector("[aria-invalid=true]"))?.focus();
      });
    } finally {
      setBusy(false);
    }
  };
  return { form, faults, setFaults, busy, onSubmit };
}
