/** Asking for a token. */

import { html, useState } from "../vendor/htm-preact.module.js";

/**
 * A refused token stays in the field, where a fault in copying it can be seen.
 * @param {{refused: {token: string, message: string}, onToken: (token: string) => void}} props
 */
export function SignIn({ refused, onToken }) {
  const [token, setToken] = useState(refused.token);
  const [shown, setShown] = useState(false);
  const { message } = refused;
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (token.trim()) onToken(token.trim());
  };
  return html`
    <main class="sign-in">
      <form class="card" onSubmit=${submit} aria-labelledby="sign-in-title">
        <img src="/static/icon.svg" alt="" width="44" height="44" />
        <h1 id="sign-in-title">Tidings</h1>
        <p class="lead">Background jobs, followed live.</p>
        <div class="field">
          <label for="token">Access token</label>
          <input id="token" name="token" type=${shown ? "text" : "password"} autocomplete="off" spellcheck="false" autofocus value=${token} class="mono"
            onFocus=${(/** @type {any} */ event) => event.target.select()}
            aria-invalid=${message ? "true" : undefined} aria-describedby=${message ? "token-fault token-hint" : "token-hint"}
            onInput=${(/** @type {any} */ event) => setToken(event.target.value)} />
          <label class="check"><input type="checkbox" checked=${shown}
            onChange=${(/** @type {any} */ event) => setShown(event.target.checked)} /> Show it</label>
          ${message && html`<ul class="faults" id="token-fault" role="alert"><li>${message}</li></ul>`}
          <p class="hint" id="token-hint">
            <code>tidings dev</code> prints one; <code>tidings token --sub you</code> makes another. It stays in this tab.
          </p>
        </div>
        <button type="submit" class="button button-main button-wide" disabled=${!token.trim()}>Continue</button>
      </form>
    </main>
  `;
}
