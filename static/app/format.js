/** Numbers, times and sizes as people read them. Pure. */

/**
 * @param {number} seconds
 * @returns {string} such as `8 s`, `3 min 20 s`, `2 h 5 min`
 */
export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  if (seconds < 10) return `${Math.round(seconds * 10) / 10} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3_600) return pair(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86_400) return pair(Math.floor(whole / 3_600), "h", Math.floor((whole % 3_600) / 60), "min");
  return pair(Math.floor(whole / 86_400), "d", Math.floor((whole % 86_400) / 3_600), "h");
}

/**
 * @param {number} bytes
 * @returns {string} such as `812 B`, `4.1 kB`, `12 MB`
 */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1_000;
    unit++;
  }
  return `${unit > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/**
 * @param {string} at an ISO 8601 time
 * @param {number} nowMs
 * @returns {string} such as `just now`, `5 min ago`, `in 2 h`
 */
export function ago(at, nowMs) {
  const seconds = (nowMs - Date.parse(at)) / 1_000;
  if (!Number.isFinite(seconds)) return "";
  const far = Math.abs(seconds);
  if (far < 10) return "just now";
  const text =
    far < 60 ? `${Math.round(far)} s`
    : far < 3_600 ? `${Math.round(far / 60)} min`
    : far < 86_400 ? `${Math.round(far / 3_600)} h`
    : `${Math.round(far / 86_400)} d`;
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

/**
 * @param {string} at
 * @returns {string} the time of day to the second, in the reader's time zone
 */
export function clock(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "";
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}

/**
 * @param {string | null | undefined} at
 * @returns {string} such as `2026-11-23 10:04:11`, in the reader's time zone
 */
export function moment(at) {
  const date = new Date(at ?? NaN);
  if (Number.isNaN(date.getTime())) return "";
  const day = [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
  return `${day} ${clock(date.toISOString())}`;
}

/**
 * How long a job will still take: what it says itself, else what its pace so far suggests.
 * @param {{percent?: number | null, eta_s?: number | null} | null | undefined} progress
 * @param {string | null | undefined} startedAt
 * @param {number} nowMs
 * @returns {number | null} seconds; null when there is nothing to go by yet
 */
export function remaining(progress, startedAt, nowMs) {
  if (typeof progress?.eta_s === "number") return progress.eta_s;
  const percent = progress?.percent;
  const elapsed = startedAt ? (nowMs - Date.parse(startedAt)) / 1_000 : NaN;
  if (typeof percent !== "number" || percent < 3 || percent >= 100 || !(elapsed > 2)) return null;
  return (elapsed * (100 - percent)) / percent;
}

/**
 * @param {number} large
 * @param {string} largeUnit
 * @param {number} small
 * @param {string} smallUnit
 */
function pair(large, largeUnit, small, smallUnit) {
  return small ? `${large} ${largeUnit} ${small} ${smallUnit}` : `${large} ${largeUnit}`;
}
