"""Liveness: whatever happened to a store, a worker that looks only when it is called, and finishes what it takes, ends every job."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tidings.protocol import JobState
from tidings_tasks.store import QueueState, Verb, commands

from .bench import Bench
from .invariants import check_invariants
from .machine import StoreMachine
from .machine_inputs import MAX_QUEUE_LENGTH, QUEUES

WANTED_STEPS = int(os.environ.get("STORE_MODEL_STEPS", "0"))
STEPS_AN_EXAMPLE, LOOKS_MAX = 40, 1_000


def finish_all(bench: Bench) -> None:
    """Step when there is a token or something is due, and complete each claim; limits stay. Fails when a job is left."""
    bench.checks = False
    for queue in QUEUES:
        bench.run(commands.set_queue_state(0, queue, QueueState.ACTIVE))
    for _ in range(LOOKS_MAX):
        called = [queue for queue in QUEUES if bench.raw.delete(bench.key(f"wake:{queue}"))]
        reply = bench.step(wants=[(queue, 2) for queue in called], worker="last")
        if reply.claims:
            bench.step([bench.make_write(claim, Verb.COMPLETE) for claim in reply.claims], worker="last")
        elif not called and not any(bench.raw.exists(bench.key(f"wake:{queue}")) for queue in QUEUES):
            left = open_jobs(bench)
            if not left:
                break
            assert reply.next_due_ms is not None, f"nobody is called, and nothing falls due for {left}"
            bench.advance(reply.next_due_ms)
    assert not open_jobs(bench), "jobs are left"
    snapshot = bench.snapshot()
    check_invariants(snapshot)
    assert not [key for key in snapshot if key.startswith((":p:", ":h:", ":q:"))], "something is left behind"


def open_jobs(bench: Bench) -> list[str]:
    """Describe the jobs that have not ended."""
    snapshot = bench.snapshot()
    records = {key[3:]: kept.content for key, kept in snapshot.items() if key.startswith(":j:")}
    return [
        f"{job_id}: {record}"
        for job_id, record in records.items()
        if not JobState(record[b"s"].decode()).is_terminal
    ]


@pytest.mark.timeout(7_200 if WANTED_STEPS else 600)
def test_no_job_is_stranded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any state, each job reaches its end, though nobody looks but when called."""
    monkeypatch.setattr("tidings_tasks.store.submissions.MAX_QUEUE_LENGTH", MAX_QUEUE_LENGTH)

    class Machine(StoreMachine):
        def teardown(self) -> None:
            finish_all(self.bench)

    Machine.bench = bench
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=max(20, WANTED_STEPS // STEPS_AN_EXAMPLE),
            stateful_step_count=STEPS_AN_EXAMPLE,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink],
        ),
    )
