"""The store against the model: any sequence of commands, duplicates and late repeats among them, in any order.

``STORE_MODEL_STEPS=20000`` runs at least so many steps, for minutes; without it, a short run of seconds.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tidings.protocol import JobState, Position
from tidings_tasks.store import StepReply, Submission, Tenant, Verb, Write, commands

from .bench import ALICE, LEASE_MS, START_MS, Bench, spec_of
from .model import DAY_MS, Model, ModelJob
from .snapshot import Snapshot

TENANTS = [ALICE, Tenant("bob", "acme"), Tenant("alice")]
QUEUES = ["a", "b"]
MAX_QUEUE_LENGTH = 5
WANTED_STEPS = int(os.environ.get("STORE_MODEL_STEPS", "0"))
STEPS_AN_EXAMPLE = 60

small = st.integers(0, 10_000)
"""Picks one of what there is, modulo how much there is."""
submissions = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from(TENANTS),
        "queue": st.sampled_from(QUEUES),
        "priority": st.integers(1, 3),
        "due": st.sampled_from(["", "", "+1000", "+1", str(START_MS + 5_000)]),
        "max_attempts": st.integers(1, 4),
        "idempotency_key": st.sampled_from(["", "", "k", "l"]),
        "fingerprint": st.sampled_from(["f", "g"]),
    }
)
writes = st.fixed_dictionaries(
    {
        "job": small,
        "attempt": st.sampled_from([0, 0, 0, 0, 0, 0, -1, 100]),
        "number": st.sampled_from([1, 1, 1, 1, 1, 0, -1, 3]),
        "verb": st.sampled_from([*Verb, *[Verb.PROGRESS] * 6, Verb.LOG, Verb.OUTPUT]),
        "extra": st.sampled_from(['{"delay_ms":0}', '{"delay_ms":1000,"dead":true}']),
    }
)


class StoreMachine(RuleBasedStateMachine):
    """Does the same to the store and to the model, and compares all there is after each step."""

    bench: ClassVar[Bench]
    steps_done = 0

    def __init__(self) -> None:
        super().__init__()
        self.bench.begin_anew()
        generation: Any = self.bench.raw.hget(self.bench.key("meta"), "gen")
        self.model = Model(START_MS, generation.decode(), MAX_QUEUE_LENGTH)
        self.model.reap_from_ms = START_MS + LEASE_MS
        self.calls = itertools.count(1)
        self.data = itertools.count(1)
        self.done: list[Callable[[], None]] = []
        self.known: list[str] = []
        self.forgotten_epochs = ["never"]

    def do(self, action: Callable[[], None]) -> None:
        """Run a command on both sides, and keep it to be repeated later."""
        self.done.append(action)
        action()
        self.compare()

    # Rules

    @initialize()
    def begin(self) -> None:
        """Begin with a job, so that there is something to pick."""
        self.enqueue([{"tenant": ALICE, "queue": "a", "priority": 2, "max_attempts": 3}], all_or_none=False)

    @rule(batch=st.lists(submissions, min_size=1, max_size=3), all_or_none=st.booleans())
    def enqueue(self, batch: list[dict[str, Any]], all_or_none: bool) -> None:
        """Store jobs."""
        made = []
        for options in batch:
            tenant, max_attempts = options["tenant"], options["max_attempts"]
            spec = spec_of(tenant, max_attempts=max_attempts)
            rest = {k: v for k, v in options.items() if k not in ("tenant", "max_attempts")}
            made.append(Submission(self.bench.new_id(), spec, **rest))
        self.known += [job.id for job in made]

        def act() -> None:
            found = self.bench.enqueue(*made, all_or_none=all_or_none)
            expected = self.model.enqueue(made, all_or_none=all_or_none)
            assert [(entry.outcome, entry.id) for entry in found] == expected

        self.do(act)

    @rule(
        worker=st.sampled_from(["w1", "w2"]),
        batch=st.lists(writes, max_size=4),
        wants=st.lists(st.tuples(st.sampled_from(QUEUES), st.integers(0, 3)), max_size=3),
        most=st.sampled_from([1, 2, 100]),
    )
    def step(self, worker: str, batch: list[dict[str, Any]], wants: list[tuple[str, int]], most: int) -> None:
        """Make a step, with writes of current, stale and future attempts, new, repeated and skipped numbers."""
        made: list[Write] = []
        numbers: dict[str, int] = {}
        for options in batch:
            job = self.pick(options["job"])
            number = max(1, numbers.get(job.id, job.last_write) + options["number"])
            numbers[job.id] = number
            data = orjson.dumps({"n": next(self.data)})
            attempt = job.attempt + options["attempt"]
            made.append(Write(job.id, attempt, number, options["verb"], data, options["extra"]))
        call = next(self.calls)

        def act() -> None:
            command = commands.step(
                0, worker=worker, call=call, lease_ms=LEASE_MS, writes=made, wants=wants, most=most
            )
            reply: StepReply = self.bench.run(command)
            codes, claims, next_due_ms = self.model.step(worker, call, LEASE_MS, made, wants, most)
            assert reply.codes == codes
            assert [(c.id, c.attempt, c.tries) for c in reply.claims] == claims
            assert all(c.spec == self.model.jobs[c.id].submission.spec for c in reply.claims)
            if reply.next_due_ms is not None and next_due_ms is not None:
                assert 0 <= reply.next_due_ms <= next_due_ms
            assert next_due_ms is None or reply.next_due_ms is not None
            assert reply.now_ms == self.model.now_ms

        self.do(act)

    @rule(picks=st.lists(st.tuples(small, st.sampled_from([0, 0, -1, 1])), min_size=1, max_size=3))
    def renew(self, picks: list[tuple[int, int]]) -> None:
        """Renew leases of current, stale and future attempts."""
        pairs = [(job.id, job.attempt + by) for job, by in ((self.pick(n), by) for n, by in picks)]

        def act() -> None:
            found = self.bench.run(commands.renew(0, pairs, lease_ms=LEASE_MS))
            assert found == self.model.renew(pairs, LEASE_MS)

        self.do(act)

    @rule(n=small, by=st.sampled_from(["alice", None]), reason=st.sampled_from([None, "why"]))
    def cancel(self, n: int, by: str | None, reason: str | None) -> None:
        """Cancel a job in whatever state it is, or one that is gone."""
        job_id = self.known[n % len(self.known)]

        def act() -> None:
            command = commands.cancel(job_id, by=orjson.dumps(by), reason=orjson.dumps(reason))
            outcome, state, _ = self.bench.run(command)
            expected = self.model.cancel(job_id, by, reason)
            # The bench has repeated it; the reply is the first one's.
            assert (outcome, state) == expected

        self.do(act)

    @rule(n=small)
    def delete(self, n: int) -> None:
        """Delete a job in whatever state it is, or one that is gone."""
        job_id = self.known[n % len(self.known)]

        def act() -> None:
            assert self.bench.run(commands.delete(job_id)) == self.model.delete(job_id)

        self.do(act)

    @rule(ms=st.sampled_from([1, 999, 1_000, LEASE_MS - 1, LEASE_MS, LEASE_MS, 10 * LEASE_MS, 8 * DAY_MS]))
    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.bench.advance(ms)
        self.model.now_ms += ms
        if ms >= DAY_MS:
            self.done.clear()  # no client repeats a command for days

    @rule()
    def fork(self) -> None:
        """Have the store find itself with another history."""
        self.model.begin_generation(self.bench.begin_generation(), LEASE_MS)
        self.compare()

    @precondition(lambda self: bool(self.done))
    @rule(n=small)
    def repeat(self, n: int) -> None:
        """Have an earlier command arrive once more, however late."""
        self.done[-1 - n % min(len(self.done), 12)]()
        self.compare()

    @rule(n=small, back=st.integers(0, 6), epoch=small, limit=st.integers(1, 4))
    def read(self, n: int, back: int, epoch: int, limit: int) -> None:
        """Read a log from a position of any epoch, in pages."""
        job = self.pick(n)
        if job.id not in self.model.jobs:
            return
        names = [job.epoch, job.epoch, *(name for name, _ in job.forks), "never"]
        at = Position(names[epoch % len(names)], max(0, job.head + 1 - back))
        expected = self.model.read(job.id, at.epoch, at.seq)
        self.bench.checks = False
        page = self.bench.read(job.id, at, limit=limit)
        assert page.reset == (expected is None)
        if expected is not None:
            assert [orjson.loads(text) for text in page.events] == expected[:limit]
        self.bench.checks = True

    # Comparing

    def pick(self, n: int) -> ModelJob:
        """Pick a job, or what would be one that is gone; more often one that runs."""
        running = [job for job in self.model.jobs.values() if job.state is JobState.RUNNING]
        if running and n % 4:
            return running[n // 4 % len(running)]
        job_id = self.known[n // 4 % len(self.known)]
        return self.model.jobs.get(job_id) or ModelJob(self.bench.submission(id=job_id), "gone", attempt=1)

    def compare(self) -> None:
        """Assert that the store holds what the model holds, no more and no less."""
        type(self).steps_done += 1
        snapshot = self.bench.snapshot()
        assert {key[3:] for key in snapshot if key.startswith(":j:")} == set(self.model.jobs)
        for job in self.model.jobs.values():
            compare_job(snapshot, job)
            if job.head <= 2:
                found = self.bench.store.run(commands.read_events(job.id))
                assert found is not None
                assert [orjson.loads(text) for text in found.events] == job.log
        for name, feed in self.model.feeds.items():
            texts = snapshot[f":fl:{name}"].content
            head = snapshot[f":f:{name}"].content
            events = [orjson.loads(text) for text in texts]
            assert int(head[b"n"]) == len(feed.entries)
            assert [(e["job_id"], e["seq"], e["kind"]) for e in events] == [
                entry[1:] for entry in feed.entries
            ]
            generations = [generation for generation, _ in itertools.groupby(e[0] for e in feed.entries)]
            forks = [pair.split("_")[0] for pair in head[b"fk"].decode().split(",") if pair]
            assert [*forks, head[b"g"].decode()][-17:] == generations[-17:]
        keys = {key: kept.content for key, kept in snapshot.items() if key.startswith(":i:")}
        assert keys == {
            f":i:{scope}:{key}": f"{job_id} {fingerprint}".encode()
            for (scope, key), (job_id, fingerprint) in self.model.keys.items()
        }


INDEXES: dict[JobState, str] = {
    JobState.SCHEDULED: ":due",
    JobState.RETRYING: ":due",
    JobState.RUNNING: ":lease",
    JobState.COMPLETED: ":done",
    JobState.FAILED: ":done",
    JobState.CANCELLED: ":done",
}


def compare_job(snapshot: Snapshot, job: ModelJob) -> None:
    """Assert that the store holds a job as the model does: record, log, and place in the index of its state."""
    content = snapshot[f":j:{job.id}"].content
    record = {k.decode(): v.decode() if isinstance(v, bytes) else v for k, v in content.items()}
    assert job.state is not None
    assert record["s"] == job.state.value
    numbers = {"a": job.attempt, "t": job.tries, "lw": job.lost, "w": job.last_write, "n": job.head}
    assert {name: record.get(name, 0) for name in numbers} == numbers
    assert record["e"] == job.epoch
    assert record.get("fk", "") == ",".join(f"{epoch}:{head}" for epoch, head in job.forks)
    if job.head > 1 and "dl" not in record:
        assert [orjson.loads(text) for text in snapshot[f":e:{job.id}"].content] == job.log
    if job.progress is not None and "lb" not in record:
        assert orjson.loads(snapshot[f":x:{job.id}"].content[b"p"]) == job.progress
    index = INDEXES.get(job.state, f":q:{job.submission.queue}")
    member = f"{job.id}:{job.attempt}" if job.state is JobState.RUNNING else job.id
    assert snapshot[index].content[member.encode()] == job.score


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
                phases=[Phase.generate, Phase.shrink],
            ),
        )
    print(f"{Machine.steps_done} steps")


def test_the_model_notices_a_store_that_differs(bench: Bench) -> None:
    """The checker is checked: one changed field, event or place is found."""

    class Machine(StoreMachine):
        pass

    Machine.bench = bench

    machine = Machine()
    machine.begin()
    machine.step(worker="w1", batch=[], wants=[("a", 1)], most=1)
    [other] = machine.known
    log = {"job": 0, "attempt": 0, "number": 1, "verb": Verb.LOG, "extra": ""}
    machine.step(worker="w1", batch=[log], wants=[], most=1)
    machine.begin()
    [_, job_id] = machine.known
    faults: list[Callable[[], object]] = [
        lambda: bench.raw.copy(bench.key(f"j:{other}"), bench.key(f"j:{job_id}"), replace=True),
        lambda: bench.raw.lset(bench.key(f"e:{other}"), 1, b'{"seq":3}'),
        lambda: bench.raw.zadd(bench.key("q:a"), {job_id: 5}),
        lambda: bench.raw.rpush(bench.key("fl:all"), *bench.raw.lrange(bench.key("fl:all"), 0, 0)),
        lambda: bench.raw.set(bench.key("i:acme/alice:k"), "x y"),
        lambda: bench.raw.delete(bench.key(f"j:{job_id}")),
    ]
    dump = {key: bench.raw.dump(key) for key in bench.raw.keys(f"{bench.prefix}*")}
    for fault in faults:
        machine.compare()
        fault()
        with pytest.raises((AssertionError, KeyError)):
            machine.compare()
        bench.raw.delete(bench.key("i:acme/alice:k"))
        for key, value in dump.items():
            bench.raw.restore(key, 0, value, replace=True)
