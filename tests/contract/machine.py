"""Does the same to the store and to the model: any sequence of commands, duplicates and late repeats among them, in any order."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tidings.protocol import JobState, Position
from tidings_tasks.store import (
    Breaker,
    QueueLimits,
    QueueState,
    StepReply,
    Submission,
    Verb,
    Write,
    commands,
)

from .bench import ALICE, LEASE_MS, START_MS, Bench, spec_of
from .comparison import compare
from .machine_inputs import (
    MAX_QUEUE_LENGTH,
    NO_LIMITS,
    QUEUES,
    TENANTS,
    TOKEN_MS,
    breakers,
    limits,
    small,
    states,
    submissions,
    wishes,
    writes,
)
from .model import DAY_MS, Model
from .model_job import ModelJob

__all__ = ["StoreMachine"]


class StoreMachine(RuleBasedStateMachine):
    """Compares all there is after each step."""

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

    @initialize(asked=limits, most=st.integers(1, 2))
    def begin(self, asked: QueueLimits = NO_LIMITS, most: int = 2) -> None:
        """Begin with limits and a job, so that there is something to pick."""
        self.govern("a", asked)
        self.govern("a", Breaker(most, 60, 10))
        self.enqueue([{"tenant": ALICE, "queue": "a", "priority": 2, "max_attempts": 3}], all_or_none=False)

    @rule(batch=st.lists(submissions, min_size=1, max_size=3), all_or_none=st.booleans())
    def enqueue(self, batch: list[dict[str, Any]], all_or_none: bool) -> None:
        """Store jobs."""
        made = []
        for options in batch:
            tenant, max_attempts = options["tenant"], options["max_attempts"]
            spec = spec_of(tenant, max_attempts=max_attempts, input={"n": next(self.data)})
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
            error = {"code": "exception", "type": "ValueError", "message": options["message"]}
            data = orjson.dumps({"n": next(self.data), **error})
            attempt = job.attempt + options["attempt"]
            made.append(Write(job.id, attempt, number, options["verb"], data, options["extra"]))
        call = next(self.calls)
        for queue, _ in wants:
            self.bench.raw.delete(self.bench.key(f"wake:{queue}"))  # a worker takes the token before it looks

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

    @rule(wish=wishes, count=st.integers(2, 4), tenant=small, queue=small, spread=st.booleans())
    def crowd(self, wish: dict[str, Any], count: int, tenant: int, queue: int, spread: bool) -> None:
        """Store many that want the same, of one owner and in one queue or not."""
        batch = []
        for n in range(count):
            by = n if spread else 0
            one = {"tenant": TENANTS[(tenant + by) % len(TENANTS)], "queue": QUEUES[(queue + by) % 2]}
            batch.append({**one, "priority": 2, "max_attempts": 9, **wish})
        self.enqueue(batch, all_or_none=False)

    @rule(
        verb=st.sampled_from([Verb.COMPLETE, Verb.RETRY, Verb.RETRY, Verb.RELEASE, None, None]),
        only_first=st.booleans(),
    )
    def work(self, verb: Verb | None, only_first: bool) -> None:
        """Carry on as workers do: end what runs, then take what there is."""
        running = self.model.in_order(JobState.RUNNING)[: 1 if only_first else None]
        ends = [
            {"job": at * 4 + 1, "attempt": 0, "number": 1, "verb": verb, "extra": '{"delay_ms":1000}', "message": "no"}
            for at, _ in enumerate(running) if verb
        ]  # fmt: skip
        self.step("w1", ends, [(queue, 2 if only_first else 9) for queue in QUEUES], 100)

    @rule(
        verb=st.sampled_from([Verb.COMPLETE, Verb.RETRY, Verb.RETRY, Verb.RELEASE]),
        queue=st.sampled_from(QUEUES),
        count=st.integers(1, 2),
    )
    def depend(self, verb: Verb, queue: str, count: int) -> None:
        """Run jobs of the dependency, and let all of them hear the same of it."""
        self.enqueue(
            [{"tenant": ALICE, "queue": queue, "priority": 1, "max_attempts": 9, "dependency": "api"}]
            * count,
            all_or_none=False,
        )
        self.step("w2", [], [(queue, 9)], 100)
        running = self.model.in_order(JobState.RUNNING)
        ends = [
            {
                "job": at * 4 + 1,
                "attempt": 0,
                "number": 1,
                "verb": verb,
                "extra": '{"delay_ms":1000}',
                "message": "no",
            }
            for at, job in enumerate(running)
            if job.submission.dependency
        ]
        self.step("w2", ends, [], 100)

    @rule(then_work=st.booleans())
    def sleep(self, then_work: bool) -> None:
        """Let time pass until something falls due, as an idle worker does."""
        self.advance(self.model.next_due_ms() or 0)
        self.step("w1", [], [(queue, 9) for queue in QUEUES if then_work], 100)

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
        job_id = self.pick_open(n)

        def act() -> None:
            command = commands.cancel(job_id, by=orjson.dumps(by), reason=orjson.dumps(reason))
            outcome, state, _ = self.bench.run(command)
            expected = self.model.cancel(job_id, by, reason)
            # The bench has repeated it; the reply is the first one's.
            assert (outcome, state) == expected

        self.do(act)

    @rule(n=small, priority=st.sampled_from([None, 1, 3]), due=st.sampled_from([None, None, 0, 1_000, 5_000]))
    def change(self, n: int, priority: int | None, due: int | None) -> None:
        """Change when a job runs, in whatever state it is."""
        job_id = self.pick_open(n)
        due_ms = None if due is None else self.model.now_ms + due

        def act() -> None:
            outcome, state, _ = self.bench.run(commands.change(job_id, priority=priority, due_ms=due_ms))
            assert (outcome, state) == self.model.change(job_id, priority, due_ms)

        self.do(act)

    @rule(
        queue=st.sampled_from(QUEUES),
        asked=st.one_of(limits, limits, st.just(NO_LIMITS), breakers, states),
    )
    def govern(self, queue: str, asked: QueueLimits | Breaker | QueueState) -> None:
        """Give a queue other limits, or take them away; pause it, drain it, or set it going; or set the breaker's numbers."""

        def act() -> None:
            if isinstance(asked, QueueState):
                self.bench.run(commands.set_queue_state(0, queue, asked))
                self.model.set_queue_state(queue, asked)
                return
            queues = {queue: asked} if isinstance(asked, QueueLimits) else {}
            dependencies = {"api": asked} if isinstance(asked, Breaker) else {}
            self.bench.run(commands.configure(0, queues=queues, dependencies=dependencies))
            self.model.configure(queues, dependencies)

        self.do(act)

    @rule(queue=st.sampled_from(QUEUES), limit=st.sampled_from([2, 500]), dry_run=st.booleans())
    def purge(self, queue: str, limit: int, dry_run: bool) -> None:
        """Count what waits in a queue, or cancel it all: a page that is cancelled again is the next one."""
        limit = limit if dry_run else 500

        def act() -> None:
            page = self.bench.run(commands.purge_queue(0, queue, by=b'"root"', limit=limit, dry_run=dry_run))
            expected = self.model.purge_queue(queue, "root", limit, dry_run=dry_run)
            assert (page.waiting, page.cancelled, page.next_id) == expected

        self.do(act)

    @rule(picks=st.lists(small, min_size=1, max_size=3))
    def release_dead(self, picks: list[int]) -> None:
        """Take jobs out of the dead letters, which are there or not."""
        ids = [self.known[n % len(self.known)] for n in picks]

        def act() -> None:
            assert self.bench.run(commands.release_dead(0, ids)) == self.model.release_dead(ids)

        self.do(act)

    @rule(n=small)
    def delete(self, n: int) -> None:
        """Delete a job in whatever state it is, or one that is gone."""
        job_id = self.known[n % len(self.known)]

        def act() -> None:
            assert self.bench.run(commands.delete(job_id)) == self.model.delete(job_id)

        self.do(act)

    @rule(
        ms=st.sampled_from(
            [
                1,
                999,
                1_000,
                LEASE_MS - 1,
                LEASE_MS,
                1_000,
                10_000,
                10_000,
                TOKEN_MS // 2,
                TOKEN_MS,
                8 * DAY_MS,
            ]
        )
    )
    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.bench.advance(ms)
        self.model.now_ms += ms
        for scope, key in self.model.desk.forget_old_keys():
            self.bench.raw.delete(self.bench.key(f"u:{scope}:{key}"))
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
        running = self.model.in_order(JobState.RUNNING)
        if running and n % 4:
            return running[n // 4 % len(running)]
        job_id = self.known[n // 4 % len(self.known)]
        return self.model.jobs.get(job_id) or ModelJob(self.bench.submission(id=job_id), "gone", attempt=1)

    def pick_open(self, n: int) -> str:
        """Pick a job that has not ended, or any other."""
        still_open = [job.id for job in self.model.jobs.values() if not job.has_ended]
        among = still_open if still_open and n % 4 else self.known
        return among[n // 4 % len(among)]

    def compare(self) -> None:
        """Assert that the store holds what the model holds, no more and no less."""
        type(self).steps_done += 1
        compare(self.bench, self.model)
