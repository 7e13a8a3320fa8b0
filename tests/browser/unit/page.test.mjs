/** The page's pure parts: events change a job's record once, and faults find their fields. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { assignFaults, faultsAt } from "../../../static/app/faults.js";
import { aboutJob, nameOfJob, shortId } from "../../../static/app/naming.js";
import { MAX_OUTPUT_CHARACTERS, withChunk } from "../../../static/app/output.js";
import { laterJob, logLine, reduceJob } from "../../../static/app/reduce.js";

const event = (seq, kind, data = {}, more = {}) => ({ job_id: "j", epoch: "a", seq, kind, at: "2026-01-01T00:00:00Z", attempt: 1, data, ...more });
const job = { id: "j", type: "t", status: "queued", attempt: 0, position: "a:1" };

test("a job's record follows its events, and a replay changes nothing", () => {
  let now = job;
  const events = [event(2, "started", { worker: "w" }), event(3, "progress", { percent: 40 }), event(4, "completed", { result: 7 })];
  for (const each of events) now = reduceJob(now, each);
  assert.deepEqual([now.status, now.progress, now.result, now.position, now.worker], ["completed", { percent: 40 }, 7, "a:4", "w"]);
  for (const each of events) assert.equal(reduceJob(now, each), now);
});

test("a new epoch counts as later whatever its numbers", () => {
  const after = reduceJob({ ...job, position: "a:9", status: "running" }, event(5, "failed", { error: { code: "c", message: "m" } }, { epoch: "b" }));
  assert.deepEqual([after.status, after.error.code], ["failed", "c"]);
});

test("of two records the later one counts, and an input once known is kept", () => {
  const live = { ...job, position: "a:5", status: "completed" };
  assert.equal(laterJob(live, { ...job, position: "a:3", status: "running", input: { n: 1 } }).status, "completed");
  assert.deepEqual(laterJob(live, { ...job, position: "a:3", input: { n: 1 } }).input, { n: 1 });
  assert.equal(laterJob({ ...job, position: "a:3", status: "running" }, live).status, "completed");
});

test("every lifecycle event has its line in the log, progress and output have none", () => {
  for (const kind of ["scheduled", "queued", "started", "retrying", "cancelling", "completed", "failed", "cancelled"]) {
    assert.ok(logLine(event(1, kind)).text, kind);
  }
  const keyError = { code: "exception", type: "KeyError", message: "'rows'" };
  assert.equal(logLine(event(1, "failed", { error: keyError })).text, "Failed: exception: KeyError: 'rows'");
  const timeout = { code: "timeout", type: "JobTimedOut", message: "ran longer than 3 s" };
  assert.equal(logLine(event(1, "failed", { error: timeout })).text, "Failed: timeout: ran longer than 3 s");
  assert.equal(logLine(event(1, "progress")), null);
  assert.equal(logLine(event(1, "output", { chunk: "x" })), null);
  assert.equal(logLine(event(1, "log", { level: "info", message: "read", fields: { rows: 3, from: "x" } })).text, "read rows=3 from=x");
});

test("a fault is shown at the field it names, or the nearest around it, or with the form", () => {
  const paths = ["input.title", "input.sections", "input.sections.1.heading", "input.sections.1.table"];
  const error = {
    message: "The input is not valid",
    errors: [
      { field: "input.sections.1.table.rows.7.2", message: "too long" },
      { field: "input.sections.0.heading", message: "missing" },
      { field: "title", message: "empty" },
      { field: "queue", message: "unknown" },
    ],
  };
  const faults = assignFaults(error, paths);
  assert.deepEqual(faultsAt(faults, "input.sections.1.table").map(({ message }) => message), ["too long"]);
  assert.deepEqual(faultsAt(faults, "input.sections").map(({ message }) => message), ["missing"]);
  assert.deepEqual(faultsAt(faults, "input.title").map(({ message }) => message), ["empty"]);
  assert.deepEqual(faultsAt(faults, "").map(({ message }) => message), ["3 fields need another look.", "queue: unknown"]);
  assert.deepEqual(assignFaults({ message: "The queue is full" }, paths), [{ field: "", message: "The queue is full" }]);
});

test("a job without a title is told apart by its tags, else by its input, and always by its id", () => {
  const said = (more) => [nameOfJob({ ...job, ...more }), aboutJob({ ...job, ...more })];
  assert.deepEqual(said({ input: { n: 3, region: "north", rows: [1], none: null, blank: "" } }), ["t", "n 3, region north"]);
  assert.deepEqual(said({ input: { n: 3 }, tags: ["nightly", "eu"] }), ["t", "nightly, eu"]);
  assert.deepEqual(said({ input: { title: "Q3", n: 3 } }), ["Q3", "t"]);
  assert.deepEqual(said({ metadata: { title: "Q4" }, tags: ["eu"] }), ["Q4", "t · eu"]);
  assert.deepEqual(said({ input: null }), ["t", ""]);
  const steps = [{ name: "fetch" }, { name: "count" }];
  assert.deepEqual(said({ type: "flow", input: { steps, on_failure: "stop" } }), ["flow", "2 steps: fetch, count"]);
  assert.ok(said({ input: { text: `${"long ".repeat(40)}\n`, more: "x".repeat(99) } })[1].length <= 80);
  assert.equal(shortId("01M843T14160NF7NMMH8KJ94VHs12"), "KJ94VH");
});

test("each attempt has its own part of the output, and the oldest characters go first", () => {
  let { parts } = withChunk([], 1, "a");
  ({ parts } = withChunk(parts, 1, { b: 1 }));
  ({ parts } = withChunk(parts, 2, "c"));
  assert.deepEqual(parts, [{ attempt: 1, text: 'a{"b":1}\n' }, { attempt: 2, text: "c" }]);
  const filled = withChunk(parts, 2, "d".repeat(MAX_OUTPUT_CHARACTERS - 3));
  assert.deepEqual([filled.cut, filled.parts[0].text], [true, "}\n"]);
  assert.equal(filled.parts[1].text.length, MAX_OUTPUT_CHARACTERS - 2);
  assert.deepEqual(withChunk(parts, 3, "e".repeat(MAX_OUTPUT_CHARACTERS)).parts.map(({ attempt }) => attempt), [3]);
});
