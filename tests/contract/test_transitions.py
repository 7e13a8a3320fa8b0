"""The table of edges: each has a way, or is known to have none yet, and whatever is no edge is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from tidings.protocol import EDGES, JobState
from tidings_tasks.store import Verb, commands
from tidings_tasks.store.scripts import make_script

from .bench import Bench

S = JobState
ERROR = {"code": "exception", "type": "ValueError", "message": "no"}


def retrying(bench: Bench, delay_ms: int = 1000, **options: Any) -> str:
    """Make a job that waits for its second try."""
    claim = bench.start(max_attempts=5, **options)
    bench.write(claim, Verb.RETRY, ERROR, {"delay_ms": delay_ms})
    return claim.id


def end_with(bench: Bench, verb: Verb) -> str:
    """Make a job that ended by this write."""
    claim = bench.start()
    bench.write(claim, verb, ERROR)
    return claim.id


def due(bench: Bench, job_id: str) -> str:
    """Let a waiting job fall due."""
    bench.advance(1000)
    bench.step()
    return job_id


def expired(bench: Bench, job_id: str) -> str:
    """Let the time pass until which a job may begin."""
    return due(bench, job_id)


def put_off(bench: Bench, job_id: str) -> str:
    """Give a waiting job a time in the future."""
    bench.run(commands.change(job_id, due_ms=bench.now_ms + 1000))
    return job_id


def cancelled(bench: Bench, job_id: str) -> str:
    """Cancel a job."""
    bench.cancel(job_id)
    return job_id


WAYS: dict[tuple[JobState | None, JobState], Callable[[Bench], str]] = {
    (None, S.SCHEDULED): lambda bench: bench.add(due="+1000"),
    (None, S.QUEUED): lambda bench: bench.add(),
    (S.SCHEDULED, S.QUEUED): lambda bench: due(bench, bench.add(due="+1000")),
    (S.SCHEDULED, S.CANCELLED): lambda bench: cancelled(bench, bench.add(due="+1000")),
    (S.QUEUED, S.RUNNING): lambda bench: bench.start().id,
    (S.SCHEDULED, S.FAILED): lambda bench: expired(bench, bench.add(due="+5000", expires="+1000")),
    (S.QUEUED, S.CANCELLED): lambda bench: cancelled(bench, bench.add()),
    (S.QUEUED, S.FAILED): lambda bench: expired(bench, bench.add(expires="+1000")),
    (S.QUEUED, S.SCHEDULED): lambda bench: put_off(bench, bench.add()),
    (S.RUNNING, S.RETRYING): lambda bench: retrying(bench),
    (S.RUNNING, S.QUEUED): lambda bench: end_with(bench, Verb.RELEASE),
    (S.RUNNING, S.CANCELLED): lambda bench: end_with(bench, Verb.CANCEL),
    (S.RUNNING, S.COMPLETED): lambda bench: end_with(bench, Verb.COMPLETE),
    (S.RUNNING, S.FAILED): lambda bench: end_with(bench, Verb.FAIL),
    (S.RETRYING, S.QUEUED): lambda bench: due(bench, retrying(bench)),
    (S.RETRYING, S.CANCELLED): lambda bench: cancelled(bench, retrying(bench)),
    (S.RETRYING, S.FAILED): lambda bench: expired(bench, retrying(bench, 5000, expires="+1000")),
}
"""A way over each edge. The job is in the edge's second state afterwards."""
NOT_YET = {
    (S.RUNNING, S.WAITING_INPUT),
    (S.WAITING_INPUT, S.QUEUED),
    (S.WAITING_INPUT, S.CANCELLED),
}
"""Edges of the table that no command takes: waiting for input."""
EVENT_OF = {S.RUNNING: "started"}


def test_every_edge_has_a_way_or_is_known_to_have_none() -> None:
    """The table promises no more than this suite has seen."""
    table = {(state, target) for state, targets in EDGES.items() for target in targets}
    assert WAYS.keys() | NOT_YET == table
    assert not WAYS.keys() & NOT_YET


@pytest.mark.parametrize("edge", WAYS, ids=lambda edge: f"{edge[0]}-{edge[1]}")
def test_an_edge_is_marked_by_its_event(bench: Bench, edge: tuple[JobState | None, JobState]) -> None:
    """The newest event tells the state that was reached."""
    job_id = WAYS[edge](bench)
    assert bench.state(job_id) is edge[1]
    assert bench.kinds(job_id)[-1] == EVENT_OF.get(edge[1], edge[1].value)


@pytest.mark.parametrize("state", [state for state in JobState if state is not S.WAITING_INPUT])
def test_the_scripts_refuse_whatever_is_no_edge(bench: Bench, state: JobState) -> None:
    """Not the commands alone: the table itself stands before every transition."""
    job_id = next(way for (_, target), way in WAYS.items() if target is state)(bench)
    script = make_script("delete", "become(load(ARGV[1]), ARGV[2], 0) return 'taken'")
    bench.raw.function_load(script.library, replace=True)

    def attempt(target: JobState) -> object:
        return bench.raw.fcall(script.function, 1, bench.prefix, job_id, target.value)

    before = bench.snapshot()
    for target in JobState:
        if target is S.WAITING_INPUT:
            continue
        if target in EDGES[state]:
            assert attempt(target) == b"taken"
        else:
            with pytest.raises(ResponseError, match=f"illegal transition {state} -> {target}"):
                attempt(target)
    assert bench.snapshot() == before
