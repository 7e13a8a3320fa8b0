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
    "Dedup",
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
    "Usage",
]

MAX_PRIORITY = 9

MAX_DELAY_S = 366 * 86_400
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
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


class Dedup(BaseModel):
    """At most one open job of this key and owner."""

    model_config = ConfigDict(extra="forbid")

    key: ShortText
    ttl_s: float | None = Field(
        default=None,
        gt=0,
        le=MAX_DELAY_S,
        description="How long the key holds, seconds; without it until its job has ended.",
    )
    mode: Literal["drop", "debounce"] = Field(
        default="drop",
        description=(
            "What a repeat does: `drop` changes nothing; `debounce`, for a job with a due time that has not begun, replaces "
            "the input and moves the due time."
        ),
    )


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
        default=None, ge=0, le=MAX_DELAY_S, description="Not before this many seconds."
    )
    tags: list[Tag] = Field(default_factory=list, max_length=16)
    metadata: dict[str, Any] = Field(
        default_factory=dict, description="Kept with the job, never interpreted."
    )
    concurrency_key: ShortText | None = Field(
        default=None,
        description="Of one owner's jobs with this key only so many run at once as the job type says, usually one.",
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="Not begun by this time, the job fails as `expired`."
    )
    expires_in_s: float | None = Field(
        default=None,
        gt=0,
        le=MAX_DELAY_S,
        description="Not begun after so many seconds, it fails as `expired`.",
    )
    dedup: Dedup | None = None

    @model_validator(mode="after")
    def _one_time_each(self) -> SubmitJob:
        if self.run_at is not None and self.delay_s is not None:
            raise ValueError("give run_at or delay_s, not both")
        if self.expires_at is not None and self.expires_in_s is not None:
            raise ValueError("give expires_at or expires_in_s, not both")
        if self.dedup is not None and self.dedup.mode == "debounce" and not (self.run_at or self.delay_s):
            raise ValueError("dedup.mode debounce needs delay_s or run_at: the time that a repeat moves")
        return self


class ChangeJob(BaseModel):
    """The body of `PATCH /api/jobs/{id}`: what is to change of a job that waits."""

    model_config = ConfigDict(extra="forbid")

    priority: int | None = Field(default=None, ge=1, le=MAX_PRIORITY, description="1 is first.")
    run_at: AwareDatetime | None = Field(
        default=None, description="Not before this time (with a UTC offset)."
    )
    delay_s: float | None = Field(
        default=None, ge=0, le=MAX_DELAY_S, description="Not before this many seconds from now; 0: at once."
    )

    @model_validator(mode="after")
    def _something(self) -> ChangeJob:
        if self.run_at is not None and self.delay_s is not None:
            raise ValueError("give run_at or delay_s, not both")
        if self.priority is None and self.run_at is None and self.delay_s is None:
            raise ValueError("give priority, run_at or delay_s: what is to change")
        return self


class Usage(BaseModel):
    """What the last attempt used. Memory is that of its whole process, which others may share."""

    cpu_s: float
    memory_peak_bytes: int


class JobStatus(BaseModel):
    """The compact answer for pollers. `queue_position`, `eta_s` and `slow` are hints outside the ETag."""

    id: JobId
    type: str
    status: JobState
    progress: Progress | None
    attempt: int = Field(description="How many times a worker has taken the job.")
    position: str = Field(description="Where the job's log stands; resume from here on any transport.")
    queue_position: int | None = Field(default=None, description="1 is next; only while queued.")
    eta_s: float | None = Field(
        default=None,
        description="Seconds until its end, as its progress or past jobs of its type let expect.",
    )
    slow: bool = Field(default=False, description="It runs longer than 95 % of past jobs of its type.")
    waiting_for: Literal["paused", "rate_limit", "concurrency", "circuit_open"] | None = Field(
        default=None, description="What keeps a queued job back besides its turn."
    )
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
    concurrency_key: str | None = None
    expires_at: AwareDatetime | None = Field(default=None, description="Not begun by then, it fails.")
    usage: Usage | None = None
    parent: str | None = Field(default=None, description="The flow that this job is a step of.")
    step: str | None = Field(default=None, description="The name of the step, in a flow.")
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
