"""What the calls for operators take and answer: dead letters, queues, workers, dependencies."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from .bulk import Word
from .events import Event
from .models import Job

__all__ = [
    "DeadFilter",
    "DeadGroup",
    "DeadGroups",
    "DeadJob",
    "DeadLetter",
    "DeadPage",
    "Dependencies",
    "Dependency",
    "Purge",
    "Purged",
    "Queue",
    "QueueLimits",
    "QueueList",
    "QueueState",
    "Retried",
    "RunningJob",
    "Worker",
    "WorkerList",
]

QueueState = Literal["active", "paused", "draining"]


class DeadJob(Job):
    """A job that failed for good, with what only operators see."""

    stack: str | None = Field(default=None, description="The traceback of the last attempt.")
    fingerprint: str | None = Field(default=None, description="The same for errors that look the same.")


class DeadPage(BaseModel):
    """The latest first. `next_cursor` is null on the last page."""

    jobs: list[DeadJob]
    next_cursor: str | None


class DeadLetter(BaseModel):
    """One dead letter, with the end of its log."""

    job: DeadJob
    events: list[Event] = Field(description="The last hundred, in order.")


class DeadGroup(BaseModel):
    """Dead letters of one queue whose errors look the same."""

    fingerprint: str
    queue: str
    type: str
    code: str
    error_type: str
    message: str = Field(description="Of the first one.")
    count: int
    first_seen: AwareDatetime
    last_seen: AwareDatetime


class DeadGroups(BaseModel):
    """The largest first."""

    groups: list[DeadGroup]


class DeadFilter(BaseModel):
    """The body that retries or purges dead letters by filter. All filters must hold."""

    model_config = ConfigDict(extra="forbid")

    queue: Word | None = Field(default=None, description="Only jobs of this queue.")
    type: Word | None = Field(default=None, description="Only jobs of this type.")
    fingerprint: Word | None = Field(default=None, description="Only jobs with such an error.")
    all: bool = Field(default=False, description="Every dead letter; in place of a filter, not beside one.")
    dry_run: bool = Field(default=True, description="Count only. Send false to do it.")
    cursor: str | None = Field(
        default=None, max_length=1_024, description="`next_cursor` of the answer before."
    )

    @model_validator(mode="after")
    def _explicit(self) -> DeadFilter:
        is_filtering = not (self.queue is None and self.type is None and self.fingerprint is None)
        if is_filtering and self.all:
            raise ValueError("give a filter or all: true, not both")
        if not is_filtering and not self.all and not self.dry_run:
            raise ValueError("give queue, type or fingerprint, or all: true for every dead letter")
        return self


class Retried(BaseModel):
    """What one call came to; `next_cursor` says that there are more."""

    matched: int
    retried: int = Field(description="How many were submitted again, each as a new job of the same owner.")
    refused: int = Field(
        default=0, description="How many found their queue full or draining; they stay dead."
    )
    next_cursor: str | None = None


class Purged(BaseModel):
    """What one call came to; `next_cursor` says that there are more."""

    matched: int
    purged: int
    next_cursor: str | None = None


class QueueLimits(BaseModel):
    """What all workers together keep to; null: no limit. Rates are job starts, such as `10/min`."""

    max_length: int | None
    max_running: int | None
    rate: str | None
    rate_per_owner: str | None
    rate_per_org: str | None


class Queue(BaseModel):
    """A queue: how it stands, and how it is set up."""

    name: str
    state: QueueState
    queued: int = Field(description="Jobs that wait for a worker, the parked ones among them.")
    parked: int = Field(description="Of these, how many wait for a limit or a dependency.")
    running: int
    rate_limited_until: AwareDatetime | None = None
    limits: QueueLimits
    policy: dict[str, Any] | None = Field(
        default=None, description="As this server's settings declare the queue; null when they do not."
    )


class QueueList(BaseModel):
    """All queues, by name."""

    queues: list[Queue]


class Purge(BaseModel):
    """The body that purges a queue."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(default=True, description="Count only. Send false to cancel the waiting jobs.")
    cursor: str | None = Field(
        default=None, max_length=128, description="`next_cursor` of the answer before."
    )


class RunningJob(BaseModel):
    """A job that a worker runs."""

    id: str
    type: str
    since: AwareDatetime


class Worker(BaseModel):
    """A worker process, as it last said itself."""

    id: str
    host: str
    pid: int
    profile: str
    queues: list[str]
    concurrency: int
    running: list[RunningJob] = Field(description="The oldest hundred at most.")
    running_count: int
    rss_bytes: int = Field(description="Memory that the process holds.")
    version: str
    runtime: str = Field(description="`tidings`, or `dramatiq` for the stock command.")
    started_at: AwareDatetime
    done: int = Field(description="Attempts that succeeded since it started.")
    failed: int = Field(description="Attempts that did not.")
    is_stopping: bool
    seen_at: AwareDatetime


class WorkerList(BaseModel):
    """The workers that live, by name."""

    workers: list[Worker]


class Dependency(BaseModel):
    """A circuit breaker that is not at rest."""

    name: str
    state: Literal["closed", "open", "half_open"]
    failures: int
    open_until: AwareDatetime | None = None


class Dependencies(BaseModel):
    """Dependencies that have failed lately, by name; a job of another one is let through."""

    dependencies: list[Dependency]
