/** Positions: which event a receiver may apply, and from where several receivers can be served. */
import assert from "node:assert/strict";
import { test } from "node:test";

import { judge, judgeLive, lowest, parsePosition, positionOf } from "../../../static/tidings/position.js";

test("the rule of acceptance is the contract's, for every small case", () => {
  for (let at = 0; at < 6; at++) {
    for (let seq = 1; seq < 8; seq++) {
      for (let prev = 0; prev < seq; prev++) {
        const event = { seq, prev };
        const expected = seq <= at ? "repeat" : prev <= at ? "apply" : "gap";
        assert.equal(judge(at, event), expected, JSON.stringify({ at, ...event }));
      }
      assert.equal(judge(at, { seq }), seq <= at ? "repeat" : seq === at + 1 ? "apply" : "gap");
    }
  }
});

test("a live event of another epoch counts as a gap, even when its number fits", () => {
  assert.equal(judgeLive("a:4", { epoch: "a", seq: 5 }), "apply");
  assert.equal(judgeLive("a:4", { epoch: "b", seq: 5 }), "gap");
  assert.equal(judgeLive("a:4", { epoch: "b", seq: 3 }), "gap");
  assert.equal(judgeLive("0", { epoch: "b", seq: 1 }), "apply");
});

test("positions are read and written in one form only", () => {
  assert.deepEqual(parsePosition("k3f9:7"), { epoch: "k3f9", seq: 7 });
  assert.deepEqual(parsePosition("0"), { epoch: "", seq: 0 });
  assert.equal(positionOf({ epoch: "k3f9", seq: 7 }), "k3f9:7");
  for (const text of ["", "7", "a:", "a:-1", "a:01", "a b:1", "a:1:2", ":1", "a:1e3"]) {
    assert.throws(() => parsePosition(text), RangeError, text);
  }
});

test("several receivers are served from the lowest position, a doubtful epoch first", () => {
  assert.equal(lowest([], "a"), null);
  assert.equal(lowest(["a:9", "a:3", "a:5"], "a"), "a:3");
  assert.equal(lowest(["a:9", "0"], "a"), "0");
  assert.equal(lowest(["b:1", "a:9"], "b"), "a:9");
});
