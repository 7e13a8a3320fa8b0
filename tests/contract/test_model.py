"""The store against the model, and the checker against planted faults.

``STORE_MODEL_STEPS=20000`` runs at least so many steps, for minutes; without it, a short run of seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tidings.protocol import JobState
from tidings_tasks.store import QueueLimits, Rate, Verb

from .bench import ALICE, START_MS, Bench
from .invariants import check_invariants
from .machine import StoreMachine
from .machine_inputs import MAX_QUEUE_LENGTH, TENANTS

WANTED_STEPS = int(os.environ.get("STORE_MODEL_STEPS", "0"))
STEPS_AN_EXAMPLE = 60


@pytest.mark.timeout(7_200 if WANTED_STEPS else 600)
def test_the_store_does_what_the_model_does(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """State, log, feeds, counts and indexes agree after every step."""
    monkeypatch.setattr("tidings_tasks.store.submissions.MAX_QUEUE_LENGTH", MAX_QUEUE_LENGTH)

    class Machine(StoreMachine):
        pass

    Machine.bench = bench

    examples = WANTED_STEPS // STEPS_AN_EXAMPLE * 2 if WANTED_STEPS else 50
    while Machine.steps_done < max(1, WANTED_STEPS):
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS_AN_EXAMPLE,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                print_blob=False,
                report_multiple_bugs=False,
                phases=[Phase.generate, Phase.shrink],
            ),
        )
    print(f"{Machine.steps_done} steps")


def plant(bench: Bench, job_id: str, other: str) -> dict[str, Callable[[], object]]:
    """Return faults, each of which makes a store differ from what its commands made."""
    raw, key = bench.raw, bench.key
    return {
        "another record": lambda: raw.copy(key(f"j:{other}"), key(f"j:{job_id}"), replace=True),
        "another event": lambda: raw.lset(key(f"e:{other}"), 1, b'{"seq":3}'),
        "another place": lambda: raw.zadd(key("q:b"), {job_id: 5}),
        "one more entry of a feed": lambda: raw.rpush(key("fl:all"), *raw.lrange(key("fl:all"), 0, 0)),
        "an idempotency key": lambda: raw.set(key("i:acme/alice:k"), "x y"),
        "no record": lambda: raw.delete(key(f"j:{job_id}")),
        "a deduplication key of another": lambda: raw.set(key("u:/alice:k"), other),
        "a deduplication key for ever": lambda: raw.set(key("u:acme/bob:l"), other),
        "a fuller bucket": lambda: raw.set(key("b:q:a"), START_MS + 1, px=9_000),
        "no bucket": lambda: raw.delete(key("b:q:a")),
        "no timer": lambda: raw.zrem(key("gates"), "q:a"),
        "a later timer": lambda: raw.zincrby(key("gates"), 1, "q:a"),
        "a breaker that forgot": lambda: raw.delete(key("br")),
        "no holder": lambda: raw.delete(key("h:c:acme:k")),
        "another turn": lambda: raw.zincrby(key("v:b"), 1, "2//alice"),
        "no expiry": lambda: raw.delete(key("exp")),
        "no dead letter": lambda: raw.delete(key("dead")),
        "no group of dead letters": lambda: raw.delete(key("dg")),
        "a pause": lambda: raw.hset(key("qc"), "!b", "paused"),
    }


def is_noticed(machine: StoreMachine) -> bool:
    """Whether the comparison, or what must hold of any store, finds something wrong."""
    try:
        machine.compare()
        check_invariants(machine.bench.snapshot())
    except (AssertionError, KeyError):
        return True
    return False


def test_the_model_notices_a_store_that_differs(bench: Bench) -> None:
    """The checker is checked: one changed field, event, place, key, bucket, timer or breaker is found."""

    class Machine(StoreMachine):
        pass

    Machine.bench = bench

    machine = Machine()
    machine.begin(QueueLimits(rate=Rate(3, 1_800, 3)))
    plain = {"tenant": ALICE, "queue": "a", "priority": 2, "max_attempts": 1}
    machine.enqueue([plain | {"concurrency_key": "k"}, plain | {"dependency": "api"}], all_or_none=False)
    machine.step(worker="w1", batch=[], wants=[("a", 3)], most=3)
    common = {"attempt": 0, "number": 1, "extra": '{"delay_ms":0,"dead":true}', "message": "no"}
    log, failure = {"job": 1, "verb": Verb.LOG, **common}, {"job": 9, "verb": Verb.FAIL, **common}
    machine.step(worker="w1", batch=[log, failure], wants=[], most=1)
    waiting = {**plain, "tenant": TENANTS[2], "queue": "b", "expires": "+5000", "dedup_key": "k"}
    machine.enqueue([waiting], all_or_none=False)
    other, holder, dead, job_id = machine.known
    states = [machine.model.jobs[i].state for i in (other, holder, dead, job_id)]
    assert states == [JobState.RUNNING, JobState.RUNNING, JobState.FAILED, JobState.QUEUED]
    dump = {name: bench.raw.dump(name) for name in bench.raw.keys(f"{bench.prefix}*")}
    ttls = {name: max(0, bench.raw.pttl(name)) for name in dump}
    for fault, plant_it in plant(bench, job_id, other).items():
        machine.compare()
        plant_it()
        assert is_noticed(machine), fault
        for name in set(bench.raw.keys(f"{bench.prefix}*")) - set(dump):
            bench.raw.delete(name)
        for name, value in dump.items():
            bench.raw.restore(name, ttls[name], value, replace=True)
