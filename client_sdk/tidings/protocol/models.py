"""What REST takes and answers: the pydantic models behind the OpenAPI document, shared with the SDK."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from .events import Event
from .ids import JOB_ID_PATTERN
from .states import JobState

__all__ = [
    "MAX_PRIORITY",
    "ChangeJob",
    "EventPage",
    "FeedEvent",
    "FeedPage",
    "FileInfo",
    "Job",
    "JobError",
    "JobPage",
    "JobStats",
    "JobStatus",
    "JobTypeInfo",
    "Progress",
    "RetryPolicy",
    "SubmitJob",
]

MAX_PRIORITY = 9

JobId = Annotated[str, Field(pattern=JOB_ID_PATTERN, examples=["01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0"])]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]


class Progress(BaseModel):
    """How far a job is. Each progress event carries the whole of it."""

    percent: float | None = Field(default=None, ge=0, le=100)
    message: str | None = None
    current: float | None = None
    total: float | None = None
    step: str | None = None
    eta_s: float | None = None
    meta: dict[str, Any] | None = None


class JobError(BaseModel):
    """Why an attempt did not succeed."""

    code: str
    type: str
    message: str


class SubmitJob(BaseModel):
    """The body of `POST /api/jobs`. Owner and org come from the token, never from here."""

    model_config = ConfigDict(extra="forbid")

    type: Name = Field(examples=["report.render"])
    input: dict[str, Any] = Field(
        default_factory=dict, description="Validated against the job type's input model."
    )
    queue: Name | None = Field(default=None, description="Instead of the job type's own queue.")
    priority: int | None = Field(
        default=None, ge=1, le=MAX_PRIORITY, description="1 is first; instead of the queue's own."
    )
    run_at: AwareDatetime | None = Field(
        default=None, description="Not before this time (with a UTC offset)."
    )
    delay_s: float | None = Field(
        default=None, ge=0, le=366 * 86_400, description="Not before this many seconds."
    )
    tags: list[Tag] = Field(default_factory=list, max_length=16)
    metadata: dict[str, Any] = Field(
        default_factory=dict, description="Kept with the job, never interpreted."
    )

    @model_validator(mode="after")
    def _one_due_time(self) -> SubmitJob:
        if self.run_at is not None and self.delay_s is not None:
            raise ValueError("give run_at or delay_s, not both")
        return self


class ChangeJob(BaseModel):
    """The body of `PATCH /api/jobs/{id}`: what is to change of a job that waits."""

    model_config = ConfigDict(extra="forbid")

    priority: int | None = Field(default=None, ge=1, le=MAX_PRIORITY, description="1 is first.")
    run_at: AwareDatetime | None = Field(
        default=None, description="Not before this time (with a UTC offset)."
    )
    delay_s: float | None = Field(
        default=None, ge=0, le=366 * 86_400, description="Not before this many seconds from now; 0: at once."
    )

    @model_validator(mode="after")
    def _something(self) -> ChangeJob:
        if self.run_at is not None and self.delay_s is not None:
            raise ValueError("give run_at or delay_s, not both")
        if self.priority is None and self.run_at is None and self.delay_s is None:
            raise ValueError("give priority, run_at or delay_s: what is to change")
        return self


class JobStatus(BaseModel):
    """The compact answer for pollers. `queue_position` and `eta_s` are hints outside the ETag."""

    id: JobId
    type: str
    status: JobState
    progress: Progress | None
    attempt: int = Field(description="How many times a worker has taken the job.")
    position: str = Field(description="Where the job's log stands; resume from here on any transport.")
    queue_position: int | None = Field(default=None, description="1 is next; only while queued.")
    eta_s: float | None = None
    updated_at: AwareDatetime


class Job(JobStatus):
    """The whole job."""

    queue: str
    priority: int
    owner: str
    org: str | None
    input: Any
    result: Any = None
    result_ref: str | None = Field(default=None, description="Where the result is, when it is over 64 KiB.")
    error: JobError | None = None
    tries: int = Field(description="What counts against max_attempts: failures, time-outs, lost workers.")
    max_attempts: int
    timeout_s: float
    tags: list[str]
    metadata: dict[str, Any]
    retry_of: str | None = None
    worker: str | None = None
    cancel_requested: bool = False
    created_at: AwareDatetime
    run_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None


class JobPage(BaseModel):
    """Newest first. `next_cursor` is null on the last page."""

    jobs: list[Job]
    next_cursor: str | None


class EventPage(BaseModel):
    """What followed a position. `done`: the terminal event is at or before `position`."""

    events: list[Event]
    position: str
    done: bool
    reset: bool = Field(default=False, description="The position was no longer valid: begin anew from `job`.")
    job: Job | None = None


class FeedEvent(BaseModel):
    """One entry of a feed. `position` is null for progress, which a feed does not number."""

    feed: Literal["mine", "org", "all"]
    position: str | None
    event: Event


class FeedPage(BaseModel):
    """A feed: the newest open jobs (on a first read or a reset) and what followed a position."""

    feed: Literal["mine", "org", "all"]
    events: list[FeedEvent]
    position: str
    jobs: list[Job] | None = None
    reset: bool = False


class JobStats(BaseModel):
    """The caller's jobs, counted by state."""

    mode: Literal["embedded", "standalone", "cluster"]
    counts: dict[JobState, int]
    total: int
    timestamp: AwareDatetime


class RetryPolicy(BaseModel):
    """When and how often a failed attempt is repeated."""

    max_attempts: int
    backoff_s: list[float]


class JobTypeInfo(BaseModel):
    """A registered job type."""

    type: str
    description: str
    queue: str
    timeout_s: float
    retry: RetryPolicy
    input_schema: dict[str, Any] = Field(description="JSON Schema (2020-12) of the input.")


class FileInfo(BaseModel):
    """An owned file: input of a job, or its output."""

    id: str
    name: str
    media_type: str
    size_bytes: int
    sha256: str
    created_at: AwareDatetime
    url: str
