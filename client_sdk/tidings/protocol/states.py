"""The job's states, its edges, and the events that mark them (contract §2)."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

__all__ = ["EDGES", "LIFECYCLE", "TERMINAL_KINDS", "TERMINAL_STATES", "EventKind", "JobState"]


class JobState(StrEnum):
    """Where a job stands. ``completed``, ``failed`` and ``cancelled`` are reached once and never left."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    WAITING_INPUT = "waiting_input"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended."""
        return self in TERMINAL_STATES


_KIND = re.compile(r"[a-z][a-z_]{0,63}")


class EventKind(StrEnum):
    """What an event tells (contract §3).

    A worker of a newer release may tell what this one has no name for. Such a kind is an ``EventKind`` too, equal to its word and
    in none of the sets below, so that an older client keeps its place in the log.
    """

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    STARTED = "started"
    PROGRESS = "progress"
    LOG = "log"
    OUTPUT = "output"
    RETRYING = "retrying"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether this event ends its log."""
        return self in TERMINAL_KINDS

    @classmethod
    def _missing_(cls, value: object) -> EventKind | None:
        if not isinstance(value, str) or _KIND.fullmatch(value) is None:
            return None
        kind = str.__new__(cls, value)
        kind._name_, kind._value_ = value.upper(), value
        return kind


TERMINAL_STATES: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
TERMINAL_KINDS: Final = frozenset({EventKind.COMPLETED, EventKind.FAILED, EventKind.CANCELLED})
LIFECYCLE: Final = frozenset(EventKind) - {EventKind.PROGRESS, EventKind.LOG, EventKind.OUTPUT}
"""Kinds that a feed numbers and keeps; progress passes through a feed unnumbered, logs and output not at all."""

_S = JobState
EDGES: Final[dict[JobState | None, frozenset[JobState]]] = {
    None: frozenset({_S.SCHEDULED, _S.QUEUED}),
    _S.SCHEDULED: frozenset({_S.QUEUED, _S.CANCELLED, _S.FAILED}),
    _S.QUEUED: frozenset({_S.RUNNING, _S.SCHEDULED, _S.CANCELLED, _S.FAILED}),
    _S.RUNNING: frozenset({_S.RETRYING, _S.QUEUED, _S.WAITING_INPUT, _S.CANCELLED, _S.COMPLETED, _S.FAILED}),
    _S.RETRYING: frozenset({_S.QUEUED, _S.CANCELLED, _S.FAILED}),
    _S.WAITING_INPUT: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
"""Every permitted transition; the store's scripts refuse all others."""
