/** Calls to the REST interface: token, time-out, problem documents, one renewal of an expired token. */

import { TidingsError, connectionLost, isAbort } from "./errors.js";

const REQUEST_TIMEOUT_MS = 20_000;
const UPLOAD_TIMEOUT_MS = 600_000;
/** Somebody answered, but not for the server. */
const GATEWAY_FAILURES = new Set([502, 503, 504]);

/**
 * @typedef {object} RequestOptions
 * @property {Record<string, string | number | undefined | null>} [query]
 * @property {unknown} [json] the body
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {number} [timeoutMs]
 * @property {boolean} [anonymous] send no token
 */

export class Rest {
  /**
   * @param {object} options
   * @param {URL} options.base
   * @param {import("./tokens.js").Tokens} options.tokens
   * @param {(reached: boolean) => void} options.onReach told after each call whether the server answered
   */
  constructor({ base, tokens, onReach }) {
    this.base = base;
    this.tokens = tokens;
    this.onReach = onReach;
  }

  /**
   * Make a call and return the answer's JSON, null when it has no body.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} [options]
   * @returns {Promise<any>}
   * @throws {TidingsError} the server refused, or could not be reached in time
   */
  async call(method, path, options = {}) {
    const response = await this.#authorised(method, path, options);
    return response.status === 204 ? null : await readJson(response);
  }

  /**
   * Fetch a file's content.
   * @param {string} path
   * @param {AbortSignal} [signal]
   * @returns {Promise<Blob>}
   */
  async blob(path, signal) {
    const response = await this.#authorised("GET", path, { signal, timeoutMs: UPLOAD_TIMEOUT_MS });
    return response.blob();
  }

  /** Find out whether the server answers at all; `onReach` is told. */
  async probe() {
    await this.#send("GET", "/health/live", { anonymous: true, timeoutMs: 5_000 }, "").catch(() => undefined);
  }

  /**
   * Upload a file; `fetch` cannot report how much was sent, so this is an XMLHttpRequest.
   * @param {File} file
   * @param {{onProgress?: (sent: number, total: number) => void, signal?: AbortSignal}} [options]
   * @returns {Promise<any>}
   */
  async upload(file, { onProgress, signal } = {}) {
    const token = await this.tokens.get();
    return new Promise((resolve, reject) => {
      const xhr = new XMLHttpRequest();
      const stop = () => xhr.abort();
      xhr.open("POST", this.#url("/api/files"));
      xhr.setRequestHeader("Authorization", `Bearer ${token}`);
      xhr.timeout = UPLOAD_TIMEOUT_MS;
      xhr.upload.onprogress = (event) => onProgress?.(event.loaded, event.total);
      xhr.onerror = () => reject(connectionLost("The upload was cut off."));
      xhr.ontimeout = () => reject(connectionLost("The upload took too long."));
      xhr.onabort = () => reject(signal?.reason ?? new DOMException("Aborted", "AbortError"));
      xhr.onload = () => {
        const body = parseJson(xhr.responseText);
        if (xhr.status >= 200 && xhr.status < 300) resolve(body);
        else reject(problemError(body, xhr.status, xhr.getResponseHeader("Retry-After")));
      };
      xhr.onloadend = () => signal?.removeEventListener("abort", stop);
      if (signal?.aborted) return reject(signal.reason);
      signal?.addEventListener("abort", stop, { once: true });
      const form = new FormData();
      form.append("file", file, file.name);
      xhr.send(form);
    });
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} options
   */
  async #authorised(method, path, options) {
    const token = await this.tokens.get();
    try {
      return await this.#send(method, path, options, token);
    } catch (error) {
      const stale = error instanceof TidingsError && error.needsToken && this.tokens.canRenew;
      if (!stale) throw error;
      // Another call may have renewed it meanwhile; then that one is tried first.
      const current = await this.tokens.get();
      return this.#send(method, path, options, current === token ? await this.tokens.renew() : current);
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} options
   * @param {string} token
   * @returns {Promise<Response>}
   */
  async #send(method, path, { query, json, headers, signal, timeoutMs = REQUEST_TIMEOUT_MS, anonymous }, token) {
    const deadline = AbortSignal.timeout(timeoutMs);
    /** @type {Record<string, string>} */
    const sent = { Accept: "application/json", ...headers };
    if (!anonymous) sent.Authorization = `Bearer ${token}`;
    if (json !== undefined) sent["Content-Type"] = "application/json";
    const url = this.#url(path, query);
    let response;
    try {
      response = await fetch(url, {
        method,
        headers: sent,
        body: json === undefined ? undefined : JSON.stringify(json),
        signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
        cache: "no-store",
        credentials: "omit",
      });
    } catch (cause) {
      if (signal?.aborted) throw cause;
      this.onReach(false);
      throw connectionLost(deadline.aborted ? "The server did not answer in time." : "The server cannot be reached.", cause);
    }
    this.onReach(!GATEWAY_FAILURES.has(response.status));
    if (response.ok) return response;
    throw problemError(parseJson(await response.text().catch(() => "")), response.status, response.headers.get("Retry-After"));
  }

  /**
   * The token goes to the server's own origin only, whatever a document names as its address.
   * @param {string} path
   * @param {RequestOptions["query"]} [query]
   */
  #url(path, query = {}) {
    const url = new URL(path, this.base);
    if (url.origin !== this.base.origin) throw new TypeError(`not an address of this server: ${url.origin}`);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null) url.searchParams.set(name, String(value));
    }
    return url.href;
  }
}

/** @param {Response} response */
async function readJson(response) {
  try {
    return await response.json();
  } catch (cause) {
    if (isAbort(cause)) throw cause;
    throw connectionLost("The answer was cut off or is no JSON.", cause);
  }
}

/**
 * @param {string} text
 * @returns {any}
 */
function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/**
 * @param {unknown} body
 * @param {number} status
 * @param {string | null} retryAfter seconds; the date form is not used by the server
 */
function problemError(body, status, retryAfter) {
  const document = body !== null && typeof body === "object" ? body : {};
  const seconds = retryAfter === null ? NaN : Number(retryAfter);
  return new TidingsError(
    { code: `http_${status}`, title: `The server answered ${status}`, ...document, status },
    { retryAfterS: Number.isFinite(seconds) ? seconds : null },
  );
}
