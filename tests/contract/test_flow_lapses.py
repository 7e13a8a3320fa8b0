"""Flows within flows whose times are over together: each ends once, and the shard goes on."""

from __future__ import annotations

from typing import Any

import pytest

import tidings_tasks.demo  # noqa: F401 - registers demo.steps
from tidings.protocol import JobState
from tidings_tasks.flows.planning import FLOW
from tidings_tasks.submission import prepare

from .bench import ALICE, Bench

STEP: dict[str, Any] = {"name": "work", "type": "demo.steps", "input": {"steps": 1}}


@pytest.mark.parametrize("outer_s, inner_s", [(5, 5), (3, 5), (5, 3)])
def test_flows_within_each_other_may_lapse_in_one_step(bench: Bench, outer_s: float, inner_s: float) -> None:
    """The first that is timed out ends the other one, which is then not timed out again."""
    within = {"name": "within", "type": "flow", "input": {"steps": [STEP], "timeout_s": inner_s}}
    flow = {"steps": [within], "timeout_s": outer_s}
    _, outer = prepare(FLOW, ALICE, bench.keyspace, input=flow)
    bench.enqueue(outer)
    bench.advance(6_000)
    bench.step()
    assert bench.state(outer.id) is JobState.FAILED
    job_id = bench.add()
    assert bench.claim().id == job_id
