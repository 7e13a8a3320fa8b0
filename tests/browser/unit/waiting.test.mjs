/** Why a job waits, in words. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { reduceJob } from "../../../static/app/reduce.js";
import { waitingWords } from "../../../static/app/waiting.js";

test("what keeps a job back goes before its place in the queue", () => {
  assert.equal(waitingWords({ waiting_for: "paused", queue_position: 3 }), "Waits: the queue is paused");
  for (const reason of ["rate_limit", "concurrency", "circuit_open"]) {
    assert.match(waitingWords({ waiting_for: reason }), /^Waits: [a-z ]+$/);
  }
  assert.equal(waitingWords({ waiting_for: "full_moon" }), "Waits: full moon");
});

test("a job that only waits for its turn says which, and when it may be done", () => {
  assert.equal(waitingWords({ queue_position: 3 }), "Number 3 in the queue");
  assert.equal(waitingWords({ queue_position: 3, eta_s: 119.2 }), "Number 3 in the queue, done in about 2 min");
  assert.equal(waitingWords({ queue_position: null, eta_s: 0 }), "Waiting for a worker, done in about 1 s");
  assert.equal(waitingWords({}), "Waiting for a worker");
});

test("a job that has begun waits for nothing", () => {
  const job = { id: "j", type: "t", status: "queued", attempt: 0, position: "a:1", waiting_for: "paused", queue_position: 1, eta_s: 5 };
  const event = (kind) => ({ job_id: "j", epoch: "a", seq: 2, kind, at: "2026-01-01T00:00:00Z", attempt: 1, data: {} });
  for (const kind of ["started", "failed", "cancelled"]) {
    const { waiting_for, queue_position, eta_s } = reduceJob(job, event(kind));
    assert.deepEqual([waiting_for, queue_position, eta_s], [null, null, null], kind);
  }
});
