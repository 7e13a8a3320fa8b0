"""Every call on the store as a value: its script, its arguments, and how to read the answer. Pure; does no I/O.

The asynchronous and the synchronous store run the same commands (``store.py``), so nothing is written twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

from tidings.protocol import BEGINNING, JobState, Position, shard_of

from .command import Command
from .dead_commands import DeadGroup, DeadPage, list_dead, read_dead_groups, release_dead
from .keys import Tenant
from .queue_commands import (
    PurgePage,
    configure,
    list_queues,
    purge_queue,
    read_breakers,
    read_queues,
    set_queue_state,
)
from .record import JobRecord, Spec
from .references import fill
from .submissions import MAX_QUEUE_LENGTH, Enqueued, Outcome, Submission, enqueue, submission_args

__all__ = [
    "MAX_QUEUE_LENGTH",
    "Claim",
    "Command",
    "DeadGroup",
    "DeadPage",
    "Enqueued",
    "EventsRead",
    "FeedRead",
    "Head",
    "Outcome",
    "PurgePage",
    "StepReply",
    "Submission",
    "Verb",
    "Write",
    "WriteCode",
    "cancel",
    "change",
    "configure",
    "count_jobs",
    "delete",
    "enqueue",
    "list_dead",
    "list_jobs",
    "list_queues",
    "purge_queue",
    "read_breakers",
    "read_dead_groups",
    "read_events",
    "read_feed",
    "read_heads",
    "read_job",
    "read_queues",
    "release_dead",
    "renew",
    "set_queue_state",
    "step",
    "submission_args",
]

FEED_SNAPSHOT_JOBS = 100
MAX_CLAIMS = 1_000


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


_CODES = tuple(WriteCode)


class Write(NamedTuple):
    """One numbered write of an attempt. ``data`` is JSON; numbers rise by one from 1 within an attempt.

    ``extra`` is JSON too: for ``complete`` what the attempt used, or empty; for ``retry`` and ``fail`` an object, see ``step.lua``.
    """

    id: str
    attempt: int
    number: int
    verb: Verb
    data: bytes
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job handed to a worker, to be renewed and written to under its attempt.

    References in its input are replaced by the results that they stand for; ``problem`` says why that could not be done.
    """

    id: str
    attempt: int
    queue: str
    tries: int
    spec: Spec
    problem: str | None = None


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
        now, due, codes, flat, needed = reply
        claims = [
            Claim(
                flat[i].decode(), flat[i + 1], flat[i + 2].decode(), flat[i + 3], Spec.from_json(flat[i + 4])
            )
            for i in range(0, len(flat), 5)
        ]
        for number, size_bytes, *results in needed:
            claims[number - 1] = _with_results(claims[number - 1], size_bytes, results)
        wait = int(due)
        return StepReply(int(now), None if wait < 0 else wait, [_CODES[c] for c in codes], claims)

    return Command("step", shard, args, parse)


def renew(shard: int, attempts: Sequence[tuple[str, int]], *, lease_ms: int) -> Command[list[WriteCode]]:
    """Renew the leases of (job id, attempt) pairs. ``REFUSED``: the lease is gone and the attempt with it."""
    args: list[bytes | str | int] = [lease_ms]
    for job_id, attempt in attempts:
        args += (job_id, attempt)
    return Command("renew", shard, args, lambda reply: [_CODES[c] for c in reply])


def cancel(job_id: str, *, by: bytes, reason: bytes = b"null") -> Command[tuple[str, JobState | None, str]]:
    """Cancel a job; ``by`` and ``reason`` are JSON. Returns (outcome, state, position), see ``cancel.lua``."""
    return Command("cancel", shard_of(job_id), [job_id, by, reason], _read_move)


def change(
    job_id: str, *, priority: int | None = None, due_ms: int | None = None
) -> Command[tuple[str, JobState | None, str]]:
    """Change a waiting job's priority, or the time it is due (store ms; one that is past: at once).

    Returns (outcome, state, position), see ``change.lua``.
    """
    args: list[bytes | str | int] = [
        job_id,
        "" if priority is None else priority,
        "" if due_ms is None else due_ms,
    ]
    return Command("change", shard_of(job_id), args, _read_move)


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


def _with_results(claim: Claim, size_bytes: int, flat: list[Any]) -> Claim:
    if not flat:
        problem = f"input: the results that it refers to have {size_bytes} bytes, more than a claim carries; refer to parts kept as files"
        return replace(claim, problem=problem)
    results = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
    try:
        return replace(claim, spec=replace(claim.spec, input=fill(claim.spec.input, results)))
    except ValueError as error:
        return replace(claim, problem=str(error))


def _read_move(reply: Any) -> tuple[str, JobState | None, str]:
    outcome, state, epoch, head = (part.decode() for part in reply)
    return outcome, JobState(state) if state else None, f"{epoch}:{head}"


def _record(parts: Any) -> JobRecord | None:
    return None if parts is None else JobRecord.from_parts(parts)
