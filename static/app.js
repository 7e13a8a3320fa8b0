/**
 * The page: sign in with a token, start jobs, follow them.
 *
 * @import {ConnectionState, Job} from "./tidings/types.js"
 */

import { html, render, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact.module.js";
import { Tidings } from "./tidings.js";
import { JobBook } from "./app/book.js";
import { JobDetail } from "./app/job_detail.js";
import { JobList } from "./app/job_list.js";
import { NewJob } from "./app/new_job.js";
import { dropToken, keepToken, nameOf, takeToken } from "./app/session.js";
import { SignIn } from "./app/sign_in.js";

/** @type {Record<ConnectionState, [string, string]>} */
const STATES = {
  live: ["Live", "Connected: changes show at once."],
  polling: ["Polling", "No live connection can be had; changes are asked for over HTTP."],
  offline: ["Offline", "The server cannot be reached; this page goes on when it is back."],
};

function App() {
  const [token, setToken] = useState(takeToken);
  const [refused, setRefused] = useState({ token: "", message: "" });

  useEffect(() => {
    const onHash = () => {
      if (location.hash.includes("token=")) setToken(takeToken());
    };
    addEventListener("hashchange", onHash);
    return () => removeEventListener("hashchange", onHash);
  }, []);

  const leave = (/** @type {string} */ why) => {
    dropToken();
    setRefused({ token: why ? token : "", message: why });
    setToken("");
  };
  const enter = (/** @type {string} */ given) => {
    keepToken(given);
    setToken(given);
  };
  if (!token) return html`<${SignIn} refused=${refused} onToken=${enter} />`;
  return html`<${Workspace} key=${token} token=${token} onLeave=${leave} />`;
}

/**
 * @param {{token: string, onLeave: (why: string) => void}} props
 */
function Workspace({ token, onLeave }) {
  const book = useMemo(() => new JobBook(new Tidings({ token })), [token]);
  const [, redraw] = useState(0);
  const route = useRoute();

  useEffect(() => {
    const onChange = () => redraw((count) => count + 1);
    const onRefused = (/** @type {Event} */ event) => onLeave(refusalWords(/** @type {CustomEvent} */ (event).detail));
    book.addEventListener("change", onChange);
    book.tidings.addEventListener("error", onRefused);
    book.tidings.connect();
    void book.start();
    return () => {
      book.removeEventListener("change", onChange);
      book.tidings.removeEventListener("error", onRefused);
      book.stop();
    };
  }, [book]);

  // A new view is announced, and the keyboard goes on from there; the first one is where the browser begins anyway.
  const shownJob = useRef(route.job);
  useEffect(() => {
    if (shownJob.current !== route.job) document.getElementById("main")?.focus({ preventScroll: true });
    if (shownJob.current !== route.job) scrollTo(0, 0);
    shownJob.current = route.job;
  }, [route.job]);

  const show = (/** @type {Job} */ job) => (location.hash = `#/jobs/${job.id}`);
  const submitted = (/** @type {Job} */ job) => {
    book.add(job);
    show(job);
  };
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <header class="top">
      <a class="brand" href="#/new"><img src="/static/icon.svg" alt="" width="28" height="28" /> Tidings</a>
      <span class="top-space"></span>
      <${Badge} state=${book.tidings.state} />
      <div class="top-links">
        <a href="/api/docs">API</a>
        <span class="who" title=${nameOf(token)}>Signed in as <strong>${nameOf(token)}</strong></span>
        <button type="button" class="link-button" onClick=${() => onLeave("")}>Sign out</button>
      </div>
    </header>
    <div class="layout">
      <${JobList} book=${book} current=${route.job} hidden=${route.view !== "list"} />
      <main id="main" tabindex="-1" class=${route.view === "list" ? "narrow-hidden" : ""}>
        <${NewJob} tidings=${book.tidings} hidden=${route.view === "job"} onSubmitted=${submitted} />
        ${route.job && html`<${JobDetail} key=${route.job} book=${book} id=${route.job} onRetried=${show} />`}
      </main>
    </div>
  `;
}

/** @param {{state: ConnectionState}} props */
function Badge({ state }) {
  const [word, words] = STATES[state];
  return html`<span class="badge badge-${state}" role="status" title=${words} data-state=${state}><span class="visually-hidden">Connection: </span>${word}</span>`;
}

/**
 * Where the address says we are. On a narrow screen the list is a view of its own.
 * @returns {{view: "list" | "new" | "job", job: string | null}}
 */
function useRoute() {
  const [hash, setHash] = useState(() => location.hash);
  useEffect(() => {
    const onHash = () => setHash(location.hash);
    addEventListener("hashchange", onHash);
    return () => removeEventListener("hashchange", onHash);
  }, []);
  const job = /^#\/jobs\/([^/]+)$/.exec(hash)?.[1] ?? null;
  return { view: job ? "job" : hash === "#/jobs" || hash === "" ? "list" : "new", job };
}

/** @param {import("./tidings/errors.js").TidingsError} refusal */
function refusalWords(refusal) {
  switch (refusal.code) {
    case "token_expired":
      return "The token has expired. Please give a fresh one.";
    case "token_revoked":
      return "The token has been revoked. Please give another one.";
    default:
      return `The server does not take this token: ${refusal.message}`;
  }
}

render(html`<${App} />`, /** @type {Element} */ (document.getElementById("app")));
