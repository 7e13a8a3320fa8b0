"""A store with its clock in our hand, in which every call is made twice and everything is checked after each.

The store's clock never goes back, so one that was set far ahead stands still until a test moves it: tests decide when
something falls due, and the second of two equal calls has no new time as an excuse for a change.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from typing import Any, TypeVar

import orjson
import redis

from tidings.protocol import BEGINNING, JobState, Position, new_job_id
from tidings_tasks.store import (
    Claim,
    Command,
    Enqueued,
    EventsRead,
    FeedRead,
    JobRecord,
    Keyspace,
    Outcome,
    Spec,
    StepReply,
    Submission,
    SyncStore,
    Tenant,
    Verb,
    Write,
    WriteCode,
    commands,
)
from tidings_tasks.store.scripts import load_attach
from tidings_tasks.store.store import FORMAT

from .invariants import check_invariants
from .snapshot import Snapshot, describe_difference, take_snapshot

__all__ = ["ALICE", "LEASE_MS", "START_MS", "Bench", "spec_of"]

T = TypeVar("T")

START_MS = 4_102_444_800_000
"""2100-01-01: ahead of every machine's clock, so that the store's stands still."""

LEASE_MS = 6_000
ALICE = Tenant("alice", "acme")
READING = {
    "read_job", "read_jobs", "read_events", "heads", "list_jobs", "list_open", "read_feed", "count_jobs", "list_workers",
    "read_durations", "read_queues", "list_queues", "read_breakers", "read_dead_groups", "list_dead",
    "list_schedules", "read_schedule", "due_schedules",
}  # fmt: skip
TIMED = (":due", ":lease", ":exp", ":gates", ":done")
MOVING = {"cancel", "delete", "change", "purge_queue", "release_dead", "drop_schedule"}
"""What says at a repeat that there is nothing left to do."""


def spec_of(tenant: Tenant = ALICE, *, max_attempts: int = 3, input: Any = None) -> Spec:
    """Make what never changes of a job."""
    return Spec("demo.steps", tenant.owner, tenant.org, input or {"steps": 3}, 300, max_attempts, (10, 300))


class Bench:
    """One store under test. Close it, which removes its keys."""

    def __init__(self, url: str, keyspace: Keyspace) -> None:
        self.url = url
        self.store = SyncStore(url, keyspace, lease_s=LEASE_MS / 1000)
        # The client library types most replies as what either of its shells might return.
        self.raw: Any = redis.Redis.from_url(url)
        self.store.run(commands.count_jobs(0, ALICE))
        self.keyspace = keyspace
        self.prefix = keyspace.shard(0)
        self.checks = True
        """Whether each call is made twice, and the whole keyspace checked after it."""
        self.numbers: dict[tuple[str, int], int] = {}
        self.now_ms = START_MS
        self._calls = itertools.count(1)
        self._ids = itertools.count()
        self.set_clock(START_MS)

    def close(self) -> None:
        """Remove all keys and close the connections."""
        self.clear()
        self.raw.close()
        self.store.close()

    def clear(self) -> None:
        """Remove all keys."""
        keys = list(self.raw.scan_iter(f"{self.keyspace.prefix}:*", count=10_000))
        while keys:
            self.raw.unlink(*keys[-10_000:])
            del keys[-10_000:]

    def begin_anew(self) -> None:
        """Remove all keys but what makes this an installation, and set the clock back: to test many histories."""
        self.clear()
        self.checks = True
        self.numbers.clear()
        self.raw.hset(self.key("meta"), mapping={"format": FORMAT, "shards": self.keyspace.shards})
        self.set_clock(START_MS)
        self.begin_generation()

    def snapshot(self, shard: int = 0) -> Snapshot:
        """Return everything the store keeps of a shard, but for the time before which nothing falls due: that is a bound."""
        found = dict(take_snapshot(self.raw, self.keyspace.shard(shard)))
        bound = found.pop(":next", None)
        reap_from_ms = float(found[":meta"].content.get(b"reap", 0)) if ":meta" in found else 0
        times = [
            max(score, reap_from_ms) if index == ":lease" else score
            for index in TIMED if index in found for score in found[index].content.values()
        ]  # fmt: skip
        if bound is not None and times:
            assert float(bound.content) <= min(times), "something falls due unnoticed"
        return found

    def key(self, name: str) -> str:
        """Return the full name of a key, given without the shard's prefix."""
        return f"{self.prefix}:{name}"

    def run(self, command: Command[T]) -> T:
        """Run a command, and run it again as a client does that lost the reply: nothing may change then."""
        before = self.snapshot() if self.checks and command.script in READING else None
        reply = self.store.run(command)
        if not self.checks:
            return reply
        first = self.snapshot()
        if before is not None:
            assert first == before, f"{command.script} reads only:\n{describe_difference(before, first)}"
        check_invariants(first)
        again = self.store.run(command)
        second = self.snapshot()
        assert second == first, f"a repeated {command.script} changed:\n{describe_difference(first, second)}"
        if isinstance(reply, StepReply) and isinstance(again, StepReply):
            assert again.claims == reply.claims
            assert not {WriteCode.DONE, WriteCode.CANCEL_REQUESTED} & set(again.codes)
        elif command.script == "enqueue":
            assert _as_repeated(again) == _as_repeated(reply)
        elif command.script not in MOVING:
            assert again == reply
        return reply

    # Time

    def set_clock(self, ms: int) -> None:
        """Move the store's clock forward, to store ms."""
        self.now_ms = ms
        self.raw.set(self.key("clock"), ms)

    def advance(self, ms: int) -> None:
        """Move the store's clock forward by so much."""
        self.set_clock(self.now_ms + ms)

    def begin_generation(self) -> str:
        """Make the store find itself with another history, as after a failover; returns the new epoch of jobs."""
        self.raw.hset(self.key("meta"), "run", "f" * 40)
        fresh = secrets.token_hex(4)
        args = [self.prefix, FORMAT, self.keyspace.shards, LEASE_MS, fresh]
        reply = self.raw.eval(load_attach(), 1, *args)
        assert reply == [b"ok", fresh.encode()]
        return fresh

    def reconnect(self) -> None:
        """Connect anew, which attaches: this is when another history is noticed."""
        self.store.close()
        self.store = SyncStore(self.url, self.keyspace, lease_s=LEASE_MS / 1000)
        self.store.run(commands.count_jobs(0, ALICE))

    # Submitting

    def new_id(self) -> str:
        """Make a job id; ids made later sort behind."""
        return new_job_id(0, now_ms=START_MS + next(self._ids))

    def submission(
        self,
        tenant: Tenant = ALICE,
        *,
        queue: str = "default",
        priority: int = 3,
        due: str = "",
        max_attempts: int = 3,
        idempotency_key: str = "",
        fingerprint: str = "",
        id: str = "",
        **more: Any,
    ) -> Submission:
        """Make a submission that differs from all others."""
        return Submission(
            id or self.new_id(), spec_of(tenant, max_attempts=max_attempts), queue, priority, due,
            idempotency_key, fingerprint, **more,
        )  # fmt: skip

    def enqueue(self, *submissions: Submission, all_or_none: bool = False) -> list[Enqueued]:
        """Store submissions in one call."""
        return self.run(commands.enqueue(0, submissions, all_or_none=all_or_none))

    def add(self, tenant: Tenant = ALICE, **options: Any) -> str:
        """Store one new job and return its id."""
        submission = self.submission(tenant, **options)
        [enqueued] = self.enqueue(submission)
        assert enqueued.outcome is Outcome.CREATED
        return submission.id

    # Working

    def step(
        self,
        writes: Sequence[Write] = (),
        wants: Sequence[tuple[str, int]] = (),
        *,
        worker: str = "w1",
        call: int | None = None,
        lease_ms: int = LEASE_MS,
    ) -> StepReply:
        """Make one step of a worker."""
        number = next(self._calls) if call is None else call
        return self.run(
            commands.step(0, worker=worker, call=number, lease_ms=lease_ms, writes=writes, wants=wants)
        )

    def claim(self, queue: str = "default", *, worker: str = "w1") -> Claim:
        """Take the next job of a queue, which must have one."""
        [claim] = self.step(wants=[(queue, 1)], worker=worker).claims
        return claim

    def start(self, tenant: Tenant = ALICE, *, worker: str = "w1", **options: Any) -> Claim:
        """Store a job and take it."""
        job_id = self.add(tenant, **options)
        claim = self.claim(options.get("queue", "default"), worker=worker)
        assert claim.id == job_id
        return claim

    def make_write(
        self, claim: Claim, verb: Verb, data: Any = None, extra: dict[str, Any] | None = None
    ) -> Write:
        """Make an attempt's next numbered write."""
        place = (claim.id, claim.attempt)
        self.numbers[place] = self.numbers.get(place, 0) + 1
        defaults: dict[Verb, dict[str, Any]] = {Verb.RETRY: {"delay_ms": 0}, Verb.FAIL: {"dead": False}}
        more = extra or defaults.get(verb)
        text = orjson.dumps(more).decode() if more else ""
        return Write(claim.id, claim.attempt, self.numbers[place], verb, orjson.dumps(data), text)

    def write(
        self, claim: Claim, verb: Verb, data: Any = None, extra: dict[str, Any] | None = None
    ) -> WriteCode:
        """Make an attempt's next write in a step of its own."""
        [code] = self.step([self.make_write(claim, verb, data, extra)]).codes
        return code

    def progress(self, claim: Claim, percent: float) -> WriteCode:
        """Report progress."""
        return self.write(claim, Verb.PROGRESS, {"percent": percent})

    def complete(self, claim: Claim, result: Any = None) -> WriteCode:
        """End an attempt well."""
        return self.write(claim, Verb.COMPLETE, result)

    def lose_worker(self) -> StepReply:
        """Let all leases lapse and have them reaped."""
        self.advance(LEASE_MS)
        return self.step()

    def cancel(
        self, job_id: str, *, by: str = "alice", reason: str | None = None
    ) -> tuple[str, JobState | None]:
        """Cancel a job; returns the outcome and the state it is in now."""
        command = commands.cancel(job_id, by=orjson.dumps(by), reason=orjson.dumps(reason))
        outcome, state, _ = self.run(command)
        return outcome, state

    # Looking

    def record(self, job_id: str) -> JobRecord:
        """Read a job that must be there."""
        record = self.run(commands.read_job(job_id))
        assert record is not None
        return record

    def state(self, job_id: str) -> JobState:
        """Read a job's state."""
        return self.record(job_id).state

    def read(self, job_id: str, after: Position | str = BEGINNING, **options: Any) -> EventsRead:
        """Read a page of a log that must be there."""
        position = Position.parse(after) if isinstance(after, str) else after
        found = self.run(commands.read_events(job_id, position, **options))
        assert found is not None
        return found

    def events(self, job_id: str) -> list[dict[str, Any]]:
        """Read a whole log, decoded, also what is beyond any page."""
        texts: list[bytes] = self.raw.lrange(self.key(f"e:{job_id}"), 0, -1)
        return [orjson.loads(text) for text in texts or self.read(job_id).events]

    def kinds(self, job_id: str) -> list[str]:
        """Read the kinds of a whole log."""
        return [event["kind"] for event in self.events(job_id)]

    def last_event(self, job_id: str) -> dict[str, Any]:
        """Read a log's newest event."""
        return self.events(job_id)[-1]

    def feed(self, feed: str, after: Position | str = BEGINNING, **options: Any) -> FeedRead:
        """Read a page of a feed."""
        position = Position.parse(after) if isinstance(after, str) else after
        return self.run(commands.read_feed(0, feed, position, **options))

    def counts(self, tenant: Tenant = ALICE) -> dict[JobState, int]:
        """Count an owner's jobs, leaving out states that none is in."""
        return {state: n for state, n in self.run(commands.count_jobs(0, tenant)).items() if n}


def _as_repeated(reply: Any) -> list[tuple[Outcome, str, str]]:
    """What a repeat of the request is answered: who was told of a twin hears of the same job by the request's own key."""
    return [
        (Outcome.REPLAYED if entry.outcome is Outcome.DUPLICATE else entry.outcome, entry.id, entry.position)
        for entry in reply
    ]
