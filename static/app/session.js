/** The token of this browser tab: taken from the address once, then kept for the session only. */

import { subjectOf } from "../tidings/tokens.js";

const KEY = "tidings:token";

/**
 * The token that came in the fragment (`#token=…`), else the one this tab had before a reload. The fragment is
 * removed from the address bar, so that the token is neither bookmarked nor shared by accident.
 */
export function takeToken() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const given = fragment.get("token");
  if (given) {
    history.replaceState(null, "", location.pathname + location.search);
    keepToken(given);
    return given;
  }
  return stored() ?? "";
}

/** @param {string} token */
export function keepToken(token) {
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // forbidden by the browser's settings: the token lives as long as the page
  }
}

export function dropToken() {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // as above
  }
}

/** @param {string} token */
export function nameOf(token) {
  return subjectOf(token) || "unknown";
}

function stored() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}
