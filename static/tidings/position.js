/**
 * The rule of order: what a receiver at a position does with an event. Pure.
 *
 * A position is `"<epoch>:<seq>"`, or `"0"` for the beginning of any log.
 *
 * @import {JobEvent} from "./types.js"
 */

export const BEGINNING = "0";

/** Stands for the position a job's record will turn out to be at. */
export const NOW = "now";

const FORM = /^([A-Za-z0-9_-]{1,32}):(0|[1-9][0-9]{0,15})$/;

/**
 * @param {string} text
 * @returns {{epoch: string, seq: number}}
 * @throws {RangeError} the text is no position
 */
export function parsePosition(text) {
  if (text === BEGINNING) return { epoch: "", seq: 0 };
  const match = FORM.exec(text);
  if (!match) throw new RangeError(`not a position: ${String(text).slice(0, 64)}`);
  return { epoch: match[1], seq: Number(match[2]) };
}

/**
 * The position of a receiver that has applied `event`.
 * @param {Pick<JobEvent, "epoch" | "seq">} event
 */
export function positionOf(event) {
  return `${event.epoch}:${event.seq}`;
}

/**
 * Judge an event by its number alone; right where the server chose the event for this very position.
 *
 * What lies between `at` and the event was progress, folded away (`prev`).
 *
 * @param {number} at the seq the receiver stands at
 * @param {Pick<JobEvent, "seq" | "prev">} event
 * @returns {"apply" | "repeat" | "gap"}
 */
export function judge(at, event) {
  if (event.seq <= at) return "repeat";
  return (event.prev ?? event.seq - 1) <= at ? "apply" : "gap";
}

/**
 * Judge an event that came by itself. Numbers of two epochs are not comparable before the server has
 * confirmed that the position is still part of the history: so another epoch counts as a gap.
 *
 * @param {string} position
 * @param {Pick<JobEvent, "epoch" | "seq" | "prev">} event
 * @returns {"apply" | "repeat" | "gap"}
 */
export function judgeLive(position, event) {
  const { epoch, seq } = parsePosition(position);
  if (epoch !== "" && epoch !== event.epoch) return "gap";
  return judge(seq, event);
}

/**
 * The position from which all of `positions` can be served by one subscription.
 *
 * One of another epoch than `newest` comes first: only the server can tell whether it still holds.
 *
 * @param {Iterable<string>} positions
 * @param {string} newest the epoch last heard of, or ""
 * @returns {string | null} null when there are none
 */
export function lowest(positions, newest) {
  /** @type {string | null} */
  let least = null;
  let leastSeq = Infinity;
  for (const position of positions) {
    const { epoch, seq } = parsePosition(position);
    if (epoch !== "" && newest !== "" && epoch !== newest) return position;
    if (seq < leastSeq) [least, leastSeq] = [position, seq];
  }
  return least;
}
