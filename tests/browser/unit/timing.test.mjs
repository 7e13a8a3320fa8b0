/** Waiting: back-off with jitter and cap, abortable pauses, and slots given in turn. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { Backoff, Slots, pause } from "../../../static/tidings/timing.js";

test("delays double up to the cap, and jitter takes away at most half", () => {
  for (const [random, factor] of [[() => 0, 1], [() => 0.999999, 0.5]]) {
    const backoff = new Backoff({ firstMs: 100, capMs: 1000, random });
    const delays = Array.from({ length: 6 }, () => Math.round(backoff.next()));
    assert.deepEqual(delays, [100, 200, 400, 800, 1000, 1000].map((ms) => ms * factor));
    backoff.reset();
    assert.equal(Math.round(backoff.next()), 100 * factor);
  }
});

test("a back-off stays at its cap however often it fails", () => {
  const backoff = new Backoff({ firstMs: 100, capMs: 1000, random: () => 0 });
  for (let i = 0; i < 5000; i++) assert.ok(backoff.next() <= 1000);
});

test("a pause ends when it is aborted", async () => {
  const controller = new AbortController();
  const waiting = pause(60_000, controller.signal);
  controller.abort();
  await assert.rejects(waiting, { name: "AbortError" });
  await assert.rejects(pause(1, controller.signal), { name: "AbortError" });
});

test("slots are given in the order of asking, and one who leaves the queue is passed over", async () => {
  const slots = new Slots(1);
  const { signal } = new AbortController();
  const impatient = new AbortController();
  const order = [];
  const release = await slots.take(signal);
  assert.equal(slots.crowded, false);
  const gone = slots.take(impatient.signal);
  const second = slots.take(signal).then((free) => (order.push("second"), free));
  const third = slots.take(signal).then((free) => (order.push("third"), free));
  assert.equal(slots.crowded, true);
  impatient.abort();
  await assert.rejects(gone, { name: "AbortError" });
  release();
  release(); // giving back twice frees one slot only
  (await second)();
  (await third)();
  assert.deepEqual(order, ["second", "third"]);
});
