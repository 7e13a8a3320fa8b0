"""Flows within flows that begin and end in one step with others: none is ended twice, none is left behind."""

from __future__ import annotations

from typing import Any

import pytest

import tidings_tasks.demo  # noqa: F401 - registers demo.steps
from tidings.protocol import JobState
from tidings_tasks.flows.planning import FLOW
from tidings_tasks.store import Verb
from tidings_tasks.submission import prepare

from .bench import ALICE, Bench

STEP: dict[str, Any] = {"name": "work", "type": "demo.steps", "input": {"steps": 1}}


@pytest.mark.parametrize(("outer_s", "inner_s"), [(5, 5), (3, 5), (5, 3)])
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


def test_a_key_that_is_freed_by_the_step_that_parked_a_flow_lets_it_begin(bench: Bench) -> None:
    """The step that the flow waits for and the job that holds its key end in one call of a worker."""
    holder = bench.start(concurrency_key="k")
    within = {"name": "within", "type": "flow", "input": {"steps": [STEP]}, "concurrency_key": "k"}
    first = STEP | {"name": "first"}
    _, outer = prepare(FLOW, ALICE, bench.keyspace, input={"chain": [first, within]})
    bench.enqueue(outer)
    writes = [bench.make_write(claim, Verb.COMPLETE, {}) for claim in (bench.claim("default"), holder)]
    bench.step(writes)
    bench.complete(bench.claim(), {})
    assert bench.state(outer.id) is JobState.COMPLETED
