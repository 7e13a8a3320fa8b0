/**
 * Errors with the server's stable codes: one class for problem documents, refusals and lost connections.
 *
 * @import {Problem} from "./types.js"
 */

/** What the server refused, or `connection_lost` when it could not be reached. */
export class TidingsError extends Error {
  /**
   * @param {Problem} problem
   * @param {{retryAfterS?: number | null, cause?: unknown}} [extra]
   */
  constructor(problem, extra = {}) {
    super(problem.detail || problem.title || problem.code || "The request failed", { cause: extra.cause });
    this.name = "TidingsError";
    /** A stable word to program against. */
    this.code = problem.code ?? "error";
    /** The HTTP status, 0 when there was no answer. */
    this.status = problem.status ?? 0;
    this.title = problem.title ?? this.message;
    /** One entry for each field that is wrong: a dotted path, a word, a reason. */
    this.errors = Array.isArray(problem.errors) ? problem.errors : [];
    this.requestId = problem.request_id ?? null;
    this.retryAfterS = extra.retryAfterS ?? null;
  }

  /** Whether the same request may succeed later. */
  get temporary() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }

  /** Whether only another token can help. */
  get needsToken() {
    return this.status === 401;
  }
}

/**
 * @param {string} detail
 * @param {unknown} [cause]
 */
export function connectionLost(detail, cause) {
  return new TidingsError({ code: "connection_lost", status: 0, title: "The server cannot be reached", detail }, { cause });
}

/**
 * @param {unknown} reason
 * @returns {TidingsError}
 */
export function asTidingsError(reason) {
  if (reason instanceof TidingsError) return reason;
  return new TidingsError({ code: "error", status: 0, title: "Error", detail: String(reason) }, { cause: reason });
}

/** @param {unknown} reason */
export function isAbort(reason) {
  return reason instanceof DOMException && reason.name === "AbortError";
}
