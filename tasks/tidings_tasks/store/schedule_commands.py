"""Calls on the store about schedules. A schedule is kept in the shard of the tenant whose jobs it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from .commands import MAX_QUEUE_LENGTH, Command, Outcome, Submission, submission_args

__all__ = [
    "MAX_OPEN_JOBS",
    "MAX_SCHEDULES",
    "DueSchedule",
    "DueSchedules",
    "FireOutcome",
    "Fired",
    "PutOutcome",
    "ScheduleRead",
    "ScheduleRecord",
    "drop_schedule",
    "due_schedules",
    "fire_schedule",
    "list_schedules",
    "pause_schedule",
    "put_schedule",
    "read_schedule",
    "run_schedule",
]

MAX_SCHEDULES = 1_000
"""How many schedules a shard takes."""

MAX_OPEN_JOBS = 100
"""How many jobs of one schedule may be open; further runs are skipped."""


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """A schedule as the store keeps it; ``definition`` is JSON, times are store ms, None: never.

    ``last_due_ms`` is the newest due time that was handled. ``skipped_why`` says why the newest skipped one was:
    ``overlap`` (``skipped_for`` is the job in the way), ``full``, ``draining``, or an error's text. ``missed`` counts due times that
    nothing was there to handle in time. ``open_jobs`` may hold some that have ended meanwhile.
    """

    name: str
    definition: bytes
    origin: str
    version: str
    is_paused: bool
    next_ms: int | None
    last_due_ms: int | None
    last_job_id: str | None
    last_run_ms: int | None
    skipped_due_ms: int | None
    skipped_why: str | None
    skipped_for: str | None
    runs: int
    skipped: int
    missed: int
    open_jobs: tuple[str, ...]

    @classmethod
    def from_parts(cls, parts: Sequence[Any]) -> ScheduleRecord:
        """Read what ``schedules.lua`` returned: name and fields."""
        name, flat = parts
        fields = {
            key.decode(): value.decode() for key, value in zip(flat[::2], flat[1::2], strict=True) if value
        }
        return cls(
            name=name.decode(),
            definition=fields["df"].encode(),
            origin=fields["og"],
            version=fields["v"],
            is_paused="ps" in fields,
            next_ms=_ms(fields, "nx"),
            last_due_ms=_ms(fields, "ld"),
            last_job_id=fields.get("lj"),
            last_run_ms=_ms(fields, "lr"),
            skipped_due_ms=_ms(fields, "sd"),
            skipped_why=fields.get("sw"),
            skipped_for=fields.get("sj"),
            runs=int(fields.get("nr", 0)),
            skipped=int(fields.get("ns", 0)),
            missed=int(fields.get("nm", 0)),
            open_jobs=tuple(fields.get("op", "").split()),
        )


@dataclass(frozen=True, slots=True)
class ScheduleRead:
    """The store's time, and the schedule if there is one."""

    now_ms: int
    record: ScheduleRecord | None


@dataclass(frozen=True, slots=True)
class DueSchedule:
    """A schedule that is due: which definition, and for which time."""

    name: str
    version: str
    due_ms: int


@dataclass(frozen=True, slots=True)
class DueSchedules:
    """What is due now. ``next_due_ms``: how long until something else is; None when nothing is waiting."""

    now_ms: int
    next_due_ms: int | None
    due: list[DueSchedule]


class PutOutcome(StrEnum):
    """What became of a definition."""

    STORED = "stored"
    UNCHANGED = "unchanged"
    EXISTS = "exists"
    GONE = "gone"
    FULL = "full"


class FireOutcome(StrEnum):
    """Whether this call, or a call like it, fired the schedule."""

    FIRED = "fired"
    OTHER = "other"
    EARLY = "early"


@dataclass(frozen=True, slots=True)
class Fired:
    """What a firing did; ``jobs`` has an entry for each submission: an ``Outcome``, or ``overlap``."""

    outcome: FireOutcome
    jobs: tuple[str, ...]


def put_schedule(
    shard: int,
    name: str,
    *,
    version: str,
    definition: bytes,
    origin: str,
    timing: str,
    next_ms: int | None,
    must: Literal["new", "old", "any"] = "any",
) -> Command[PutOutcome]:
    """Store a definition; see ``put_schedule.lua``. ``timing`` is a fingerprint of what says when it is due."""
    args: list[bytes | str | int] = [
        name, version, definition, origin, timing, _text(next_ms), must, MAX_SCHEDULES,
    ]  # fmt: skip
    return Command("put_schedule", shard, args, lambda reply: PutOutcome(reply.decode()))


def fire_schedule(
    shard: int,
    name: str,
    *,
    version: str,
    due_ms: int,
    last_due_ms: int,
    next_ms: int | None,
    overlap: str,
    missed: int = 0,
    why_not: str = "",
    jobs: Sequence[tuple[int, Submission]] = (),
) -> Command[Fired]:
    """Fire a schedule if it is still this definition, due at ``due_ms``; see ``fire_schedule.lua``.

    Args:
        due_ms: the due time that is stored.
        last_due_ms: the newest due time that is dealt with by this.
        why_not: why nothing is run; goes without ``jobs``.
        jobs: due times and what to store for each.
    """
    args: list[bytes | str | int] = [
        name, version, due_ms, last_due_ms, _text(next_ms), overlap, missed, why_not, MAX_OPEN_JOBS,
        MAX_QUEUE_LENGTH, " ".join(str(due) for due, _ in jobs),
    ]  # fmt: skip
    for _, job in jobs:
        args += submission_args(job)

    def parse(reply: Any) -> Fired:
        outcome, *made = (part.decode() for part in reply)
        return Fired(FireOutcome(outcome), tuple(made))

    return Command("fire_schedule", shard, args, parse)


def run_schedule(shard: int, name: str, *, version: str, job: Submission) -> Command[Outcome | str]:
    """Store a job of a schedule besides its due times. Returns an ``Outcome``, ``gone`` or ``changed``."""

    def parse(reply: Any) -> Outcome | str:
        text: str = reply.decode()
        return text if text in ("gone", "changed") else Outcome(text)

    return Command("run_schedule", shard, [name, version, MAX_QUEUE_LENGTH, *submission_args(job)], parse)


def pause_schedule(shard: int, name: str, *, pause: bool, next_ms: int | None = None) -> Command[str]:
    """Pause a schedule, or let it go on, due next at ``next_ms``. Returns ``paused``, ``active`` or ``gone``."""
    args: list[bytes | str | int] = [name, int(pause), _text(next_ms)]
    return Command("pause_schedule", shard, args, lambda reply: reply.decode())


def drop_schedule(shard: int, name: str, *, origin: str = "") -> Command[str]:
    """Remove a schedule, of this origin if one is given. Returns ``dropped`` or ``gone``."""
    return Command("drop_schedule", shard, [name, origin], lambda reply: reply.decode())


def read_schedule(shard: int, name: str) -> Command[ScheduleRead]:
    """Read one schedule, and the store's time."""

    def parse(reply: Any) -> ScheduleRead:
        record = ScheduleRecord.from_parts(reply[1]) if len(reply) > 1 else None
        return ScheduleRead(int(reply[0]), record)

    return Command("read_schedule", shard, [name], parse)


def list_schedules(
    shard: int, *, after: str = "", limit: int = 100
) -> Command[tuple[int, list[ScheduleRecord]]]:
    """Read a page of a shard's schedules by name, from behind ``after``, and the store's time."""

    def parse(reply: Any) -> tuple[int, list[ScheduleRecord]]:
        now, *found = reply
        return int(now), [ScheduleRecord.from_parts(parts) for parts in found]

    return Command("list_schedules", shard, [after, limit], parse)


def due_schedules(shard: int) -> Command[DueSchedules]:
    """Ask which schedules are due, and how long until another one is."""

    def parse(reply: Any) -> DueSchedules:
        now, wait, flat = reply
        due = [
            DueSchedule(flat[i].decode(), flat[i + 1].decode(), int(flat[i + 2]))
            for i in range(0, len(flat), 3)
        ]
        return DueSchedules(int(now), None if int(wait) < 0 else int(wait), due)

    return Command("due_schedules", shard, [MAX_SCHEDULES], parse)


def _text(ms: int | None) -> str:
    return "" if ms is None else str(ms)


def _ms(fields: Mapping[str, str], name: str) -> int | None:
    return int(fields[name]) if name in fields else None
