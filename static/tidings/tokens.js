/** The access token: a string, or a function that fetches one whenever a fresh one is needed. */

import { TidingsError } from "./errors.js";

const RENEWAL_TIMEOUT_MS = 15_000;

/**
 * @typedef {string | (() => string | Promise<string>)} TokenOption
 */

export class Tokens {
  /** @type {TokenOption} */
  #option;
  /** @type {string | null} */
  #current;
  /** @type {Promise<string> | null} */
  #renewing = null;

  /** @param {TokenOption} option */
  constructor(option) {
    this.#option = option;
    this.#current = typeof option === "string" ? option : null;
  }

  /** Whether `renew` can bring another token. */
  get canRenew() {
    return typeof this.#option === "function";
  }

  /** @param {TokenOption} option */
  replace(option) {
    this.#option = option;
    this.#current = typeof option === "string" ? option : null;
    this.#renewing = null;
  }

  /** The token in use; asks the function for the first one. */
  async get() {
    return this.#current ?? this.renew();
  }

  /**
   * Fetch a fresh token; callers at the same time share one call. A fixed string stays what it is.
   * @returns {Promise<string>}
   */
  renew() {
    const option = this.#option;
    if (typeof option === "string") return Promise.resolve(option);
    this.#renewing ??= fetchToken(option)
      .then((token) => {
        if (this.#option === option) this.#current = token;
        return token;
      })
      .finally(() => {
        this.#renewing = null;
      });
    return this.#renewing;
  }

  /** Whom the token speaks for, read without checking it: good for naming a storage key, for nothing else. */
  async subject() {
    return subjectOf(await this.get());
  }
}

/**
 * @param {() => string | Promise<string>} option
 * @returns {Promise<string>}
 */
async function fetchToken(option) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("the token function took too long")), RENEWAL_TIMEOUT_MS);
  });
  try {
    const token = await Promise.race([option(), late]);
    if (typeof token !== "string" || !token) throw new Error("the token function gave no token");
    return token;
  } catch (cause) {
    const detail = `No token could be had: ${cause instanceof Error ? cause.message : cause}`;
    throw new TidingsError({ code: "unauthenticated", status: 401, title: "A valid token is needed", detail }, { cause });
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The `sub` claim of a JWT, "" when there is none to be read.
 * @param {string} token
 */
export function subjectOf(token) {
  try {
    const base64 = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    return typeof claims.sub === "string" ? claims.sub : "";
  } catch {
    return "";
  }
}
