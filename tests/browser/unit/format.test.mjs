/** Durations, sizes and estimates as people read them. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { ago, duration, moment, remaining, size } from "../../../static/app/format.js";

test("durations have at most two units", () => {
  const cases = { 0.04: "0 s", 1.26: "1.3 s", 59.4: "59 s", 60: "1 min", 200: "3 min 20 s", 7_500: "2 h 5 min", 180_000: "2 d 2 h" };
  for (const [seconds, text] of Object.entries(cases)) assert.equal(duration(Number(seconds)), text);
  assert.equal(duration(NaN), "");
});

test("sizes have two digits or more", () => {
  const cases = { 0: "0 B", 999: "999 B", 1_000: "1.0 kB", 4_096: "4.1 kB", 12_345_678: "12 MB", 999_999: "1.0 MB" };
  for (const [bytes, text] of Object.entries(cases)) assert.equal(size(Number(bytes)), text);
});

test("a moment has its day and the reader's time of day", () => {
  assert.match(moment("2026-01-01T12:00:05.123Z"), /^202[56]-\d\d-\d\d \d\d:\d\d:05$/);
  assert.equal(moment("never"), "");
  assert.equal(moment(undefined), "");
});

test("times are told from now", () => {
  const now = Date.parse("2026-01-01T12:00:00Z");
  assert.equal(ago("2026-01-01T11:59:55Z", now), "just now");
  assert.equal(ago("2026-01-01T11:55:00Z", now), "5 min ago");
  assert.equal(ago("2026-01-01T14:00:00Z", now), "in 2 h");
  assert.equal(ago("nonsense", now), "");
});

test("the estimate is the job's own, else from its pace, else none", () => {
  const now = Date.parse("2026-01-01T12:00:10Z");
  const started = "2026-01-01T12:00:00Z";
  assert.equal(remaining({ percent: 50, eta_s: 3 }, started, now), 3);
  assert.equal(remaining({ percent: 25 }, started, now), 30);
  for (const progress of [null, {}, { percent: 1 }, { percent: 100 }]) assert.equal(remaining(progress, started, now), null);
  assert.equal(remaining({ percent: 50 }, null, now), null);
  assert.equal(remaining({ percent: 50 }, "2026-01-01T12:00:09Z", now), null);
});
