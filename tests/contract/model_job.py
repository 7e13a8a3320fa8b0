"""A job of the model, and the world of them: what all parts of the model look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tidings.protocol import JobState
from tidings_tasks.store import Submission

__all__ = ["DeadGroupKey", "ModelJob", "World", "iso"]

DeadGroupKey = tuple[str, str, str, str, str]
"""Queue, type, code, type of the error, and its message without numbers."""


def iso(ms: int) -> str:
    """Format store ms."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class ModelJob:
    """One job."""

    submission: Submission
    epoch: str
    state: JobState | None = None
    head: int = 0
    attempt: int = 0
    tries: int = 0
    lost: int = 0
    last_write: int = 0
    asked_by: Any = None
    asked_why: Any = None
    is_asked: bool = False
    started_ms: int = 0
    score: float = 0
    """Its place in the index that its state belongs to: order, due time, lease's end, or end of retention."""
    gate: str = ""
    """The closed gate that it was found at; it stands in no line then."""
    expires_ms: int | None = None
    died_ms: int = 0
    dead_group: DeadGroupKey | None = None
    forks: list[tuple[str, int]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    progress: Any = None

    def __post_init__(self) -> None:
        """Begin with the priority it was submitted with; that one may be changed."""
        self.priority = self.submission.priority

    @property
    def id(self) -> str:
        """Its id."""
        return self.submission.id

    @property
    def queue(self) -> str:
        """Where it waits."""
        return self.submission.queue

    @property
    def scope(self) -> str:
        """Whose it is."""
        return self.submission.spec.tenant.scope

    @property
    def org(self) -> str | None:
        """Of which organisation its owner is."""
        return self.submission.spec.tenant.org_scope

    @property
    def key_gate(self) -> str:
        """The gate of its concurrency key, or nothing."""
        key = self.submission.concurrency_key
        return f"c:{self.org or self.scope}:{key}" if key else ""

    @property
    def has_ended(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state is not None and self.state.is_terminal


@dataclass
class World:
    """All jobs, and what time it is."""

    now_ms: int
    jobs: dict[str, ModelJob] = field(default_factory=dict)

    def in_order(self, *states: JobState, until_ms: float | None = None) -> list[ModelJob]:
        """Return the jobs in these states by their place; the store breaks ties by the member's bytes."""
        found = [job for job in self.jobs.values() if job.state in states]
        if until_ms is not None:
            found = [job for job in found if job.score <= until_ms]
        return sorted(found, key=lambda job: (job.score, f"{job.id}:{job.attempt}"))

    def queued(self, queue: str) -> list[ModelJob]:
        """Return the jobs of a queue that are queued, wherever they stand."""
        return [job for job in self.in_order(JobState.QUEUED) if job.queue == queue]

    def line(self, queue: str) -> list[ModelJob]:
        """Return those that stand in line, the next one first."""
        return [job for job in self.queued(queue) if not job.gate]

    def parked(self, gate: str) -> list[ModelJob]:
        """Return those before a gate, the next one first."""
        return [job for job in self.in_order(JobState.QUEUED) if job.gate == gate]

    def running(self, *, queue: str = "", key_gate: str = "") -> Sequence[ModelJob]:
        """Return the jobs that run, of a queue or of a concurrency key."""
        found = [job for job in self.jobs.values() if job.state is JobState.RUNNING]
        return [
            job
            for job in found
            if (not queue or job.queue == queue) and (not key_gate or job.key_gate == key_gate)
        ]
