"""Every call on the store as a value: its script, its arguments, and how to read the answer. Pure; does no I/O.

The asynchronous and the synchronous store run the same commands (``store.py``), so nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Generic, TypeVar

from tidings.protocol import BEGINNING, JobState, Position, shard_of

from .keys import Tenant
from .record import JobRecord, Spec

__all__ = [
    "Claim",
    "Command",
    "Enqueued",
    "EventsRead",
    "FeedRead",
    "Head",
    "Outcome",
    "StepReply",
    "Submission",
    "Verb",
    "Write",
    "WriteCode",
    "cancel",
    "count_jobs",
    "delete",
    "enqueue",
    "list_jobs",
    "read_events",
    "read_feed",
    "read_heads",
    "read_job",
    "renew",
    "step",
]

T = TypeVar("T")

IDEMPOTENCY_KEPT_MS = 86_400_000
COMPLETED_KEPT_MS = 7 * 86_400_000
FAILED_KEPT_MS = 30 * 86_400_000
MAX_QUEUE_LENGTH = 5_000_000
FEED_SNAPSHOT_JOBS = 100
MAX_CLAIMS = 1_000


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """A call of one script on one shard. ``parse`` reads the raw reply."""

    script: str
    shard: int
    args: Sequence[bytes | str | int]
    parse: Callable[[Any], T]


class Outcome(StrEnum):
    """What became of a submission."""

    CREATED = "created"
    REPLAYED = "replayed"
    CONFLICT = "conflict"
    FULL = "full"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to be stored. The id was made beforehand, so that a repeat of the call is recognised.

    ``due`` is store ms, or ``"+ms"`` counted from the store's now. ``fingerprint`` tells requests with the same
    idempotency key apart; it holds no spaces.
    """

    id: str
    spec: Spec
    queue: str
    priority: int
    due: str = ""
    idempotency_key: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The answer to one submission. For ``replayed`` and ``conflict``, ``id`` is the job that was there before."""

    outcome: Outcome
    id: str
    position: str


class Verb(StrEnum):
    """What a worker may write; ``step.lua`` says what each does."""

    PROGRESS = "progress"
    LOG = "log"
    OUTPUT = "output"
    COMPLETE = "complete"
    RETRY = "retry"
    FAIL = "fail"
    CANCEL = "cancel"
    RELEASE = "release"


class WriteCode(IntEnum):
    """How the store took a write."""

    REFUSED = 0
    DONE = 1
    CANCEL_REQUESTED = 2
    REPEATED = 3


@dataclass(frozen=True, slots=True)
class Write:
    """One numbered write of an attempt. ``data`` is JSON; numbers rise by one from 1 within an attempt."""

    id: str
    attempt: int
    number: int
    verb: Verb
    data: bytes
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job handed to a worker, to be renewed and written to under its attempt."""

    id: str
    attempt: int
    queue: str
    tries: int
    spec: Spec


@dataclass(frozen=True, slots=True)
class StepReply:
    """The answer to a step. ``next_due_ms``: how long until something falls due; None when nothing is waiting."""

    now_ms: int
    next_due_ms: int | None
    codes: list[WriteCode]
    claims: list[Claim]


@dataclass(frozen=True, slots=True)
class EventsRead:
    """A page of a log. On a reset, ``events`` apply after ``job``; ``job`` is None unless asked for or reset."""

    epoch: str
    head: int
    state: JobState
    scope: str
    reset: bool
    events: list[bytes]
    job: JobRecord | None


@dataclass(frozen=True, slots=True)
class FeedRead:
    """A page of a feed, or (``jobs`` is not None) its newest open jobs at the head."""

    epoch: str
    head: int
    reset: bool
    first_seq: int
    events: list[bytes]
    jobs: list[JobRecord] | None


@dataclass(frozen=True, slots=True)
class Head:
    """Where a job's log stands."""

    epoch: str
    seq: int
    state: JobState


def enqueue(shard: int, jobs: Sequence[Submission], *, all_or_none: bool = False) -> Command[list[Enqueued]]:
    """Store jobs of one shard in one atomic step."""
    args: list[bytes | str | int] = [int(all_or_none), MAX_QUEUE_LENGTH, COMPLETED_KEPT_MS, FAILED_KEPT_MS]
    for job in jobs:
        args += (
            job.id, job.queue, job.priority, job.due, job.spec.tenant.scope, job.spec.max_attempts,
            job.idempotency_key, job.fingerprint, IDEMPOTENCY_KEPT_MS, job.spec.to_json(),
        )  # fmt: skip

    def parse(reply: Any) -> list[Enqueued]:
        return [
            Enqueued(Outcome(o.decode()), i.decode(), f"{e.decode()}:{n.decode()}") for o, i, e, n in reply
        ]

    return Command("enqueue", shard, args, parse)


def step(
    shard: int,
    *,
    worker: str,
    call: int,
    lease_ms: int,
    writes: Sequence[Write] = (),
    wants: Iterable[tuple[str, int]] = (),
    most: int | None = None,
) -> Command[StepReply]:
    """Write, keep up the shard, and claim up to so many jobs of each queue, in this order, at most ``most`` in all.

    ``call`` must be the same when a step is repeated after a lost reply, and new for every other step. Up to eight
    numbered one after the other may be on their way at once, but the writes of one attempt go in one step after the other:
    a number that arrives late is taken for a repeat. ``worker`` names one run of a process: whoever uses a name and a
    number again is handed what was claimed under them before.

    Replies ``INVALID`` (``redis.ResponseError``), with nothing done, when an argument is malformed.
    """
    args: list[bytes | str | int] = [
        worker,
        call,
        lease_ms,
        len(writes),
        MAX_CLAIMS if most is None else most,
    ]
    for w in writes:
        args += (w.id, w.attempt, w.number, w.verb.value, w.data, w.extra)
    for queue, wanted in wants:
        args += (queue, wanted)

    def parse(reply: Any) -> StepReply:
        now, due, codes, flat = reply
        claims = [
            Claim(
                flat[i].decode(), flat[i + 1], flat[i + 2].decode(), flat[i + 3], Spec.from_json(flat[i + 4])
            )
            for i in range(0, len(flat), 5)
        ]
        wait = int(due)
        return StepReply(int(now), None if wait < 0 else wait, [WriteCode(c) for c in codes], claims)

    return Command("step", shard, args, parse)


def renew(shard: int, attempts: Sequence[tuple[str, int]], *, lease_ms: int) -> Command[list[WriteCode]]:
    """Renew the leases of (job id, attempt) pairs. ``REFUSED``: the lease is gone and the attempt with it."""
    args: list[bytes | str | int] = [lease_ms]
    for job_id, attempt in attempts:
        args += (job_id, attempt)
    return Command("renew", shard, args, lambda reply: [WriteCode(c) for c in reply])


def cancel(job_id: str, *, by: bytes, reason: bytes = b"null") -> Command[tuple[str, JobState | None, str]]:
    """Cancel a job; ``by`` and ``reason`` are JSON. Returns (outcome, state, position), see ``cancel.lua``."""

    def parse(reply: Any) -> tuple[str, JobState | None, str]:
        outcome, state, epoch, head = (part.decode() for part in reply)
        return outcome, JobState(state) if state else None, f"{epoch}:{head}"

    return Command("cancel", shard_of(job_id), [job_id, by, reason], parse)


def delete(job_id: str) -> Command[str]:
    """Remove an ended job. Returns ``deleted``, ``gone`` or ``open``."""
    return Command("delete", shard_of(job_id), [job_id], lambda reply: reply.decode())


def read_job(job_id: str) -> Command[JobRecord | None]:
    """Read one job."""
    return Command("read_job", shard_of(job_id), [job_id], _record)


def read_events(
    job_id: str,
    after: Position = BEGINNING,
    *,
    limit: int = 1000,
    max_bytes: int = 262_144,
    with_job: bool = False,
) -> Command[EventsRead | None]:
    """Read what follows a position in a job's log: at most ``limit`` events or ``max_bytes``, but at least one."""

    def parse(reply: Any) -> EventsRead | None:
        if reply is None:
            return None
        epoch, head, state, scope, reset, events, parts = reply
        return EventsRead(
            epoch.decode(),
            int(head),
            JobState(state.decode()),
            scope.decode(),
            bool(reset),
            events,
            _record(parts),
        )

    args: list[bytes | str | int] = [job_id, after.epoch, after.seq, limit, max_bytes, int(with_job)]
    return Command("read_events", shard_of(job_id), args, parse)


def read_heads(shard: int, job_ids: Sequence[str]) -> Command[list[Head | None]]:
    """Ask where the logs of many jobs of one shard stand."""

    def parse(reply: Any) -> list[Head | None]:
        return [v and Head(v[0].decode(), int(v[1]), JobState(v[2].decode())) for v in reply]

    return Command("heads", shard, job_ids, parse)


def list_jobs(
    shard: int, tenant: Tenant, *, after_id: str = "", limit: int = 100
) -> Command[list[JobRecord]]:
    """Read an owner's jobs, newest first, from behind ``after_id``."""
    return Command(
        "list_jobs",
        shard,
        [tenant.scope, after_id, limit],
        lambda reply: [JobRecord.from_parts(parts) for parts in reply],
    )


def read_feed(shard: int, feed: str, after: Position = BEGINNING, *, limit: int = 1000) -> Command[FeedRead]:
    """Read what follows a position in a feed; ``BEGINNING`` asks for the snapshot instead."""

    def parse(reply: Any) -> FeedRead:
        epoch, head, reset, first, events, jobs = reply
        records = None if jobs is None else [JobRecord.from_parts(parts) for parts in jobs]
        return FeedRead(epoch.decode() or "0", int(head), bool(reset), int(first), events, records)

    return Command("read_feed", shard, [feed, after.epoch, after.seq, limit, FEED_SNAPSHOT_JOBS], parse)


def count_jobs(shard: int, tenant: Tenant) -> Command[dict[JobState, int]]:
    """Count an owner's jobs by state; every state is present."""

    def parse(reply: Any) -> dict[JobState, int]:
        found = dict(zip(reply[::2], reply[1::2], strict=True))
        return {state: int(found.get(state.encode(), 0)) for state in JobState}

    return Command("count_jobs", shard, [tenant.scope], parse)


def _record(parts: Any) -> JobRecord | None:
    return None if parts is None else JobRecord.from_parts(parts)
