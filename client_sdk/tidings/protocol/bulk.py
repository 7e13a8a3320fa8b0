"""Many jobs in one call: the bodies and answers of batches and of cancelling by filter."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from .models import Job, SubmitJob
from .states import JobState

__all__ = ["MAX_BATCH", "CancelJobs", "CancelledJobs", "SubmitBatch", "SubmittedBatch"]

MAX_BATCH = 1_000
"""How many jobs one call may submit (contract §4)."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Word = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Words = Annotated[
    list[Word], Field(max_length=20), BeforeValidator(_listed, json_schema_input_type=Word | list[Word])
]
# Not strict, since a value that went through a function of ours is no JSON text any more.
_State = Annotated[JobState, Field(strict=False)]
States = Annotated[
    list[_State],
    Field(max_length=8),
    BeforeValidator(_listed, json_schema_input_type=JobState | list[JobState]),
]


class SubmitBatch(BaseModel):
    """The body of `POST /api/jobs/batch`."""

    model_config = ConfigDict(extra="forbid")

    jobs: list[SubmitJob] = Field(min_length=1, max_length=MAX_BATCH)


class SubmittedBatch(BaseModel):
    """The jobs of a batch, in the order in which they were given."""

    jobs: list[Job]
    deduplicated: list[int] = Field(
        default_factory=list,
        description="Places, from 0, at which an open job that holds the `dedup.key` stands instead of a new one.",
    )


class CancelJobs(BaseModel):
    """The body of `POST /api/jobs/cancel`. All filters must hold; of one filter's values any may."""

    model_config = ConfigDict(extra="forbid")

    status: States = Field(default_factory=list, description="Only jobs in one of these states.")
    type: Words = Field(default_factory=list, description="Only jobs of these types.")
    queue: Words = Field(default_factory=list, description="Only jobs of these queues.")
    tag: Words = Field(default_factory=list, description="Only jobs with one of these tags.")
    created_after: AwareDatetime | None = Field(default=None, description="Only younger jobs.")
    created_before: AwareDatetime | None = Field(default=None, description="Only older jobs.")
    all: bool = Field(default=False, description="Every open job; in place of a filter, not beside one.")
    reason: str | None = Field(
        default=None, max_length=500, description="Told by the `cancelled` events of jobs that were waiting."
    )
    dry_run: bool = Field(default=False, description="Count only.")
    cursor: str | None = Field(
        default=None, max_length=128, description="`next_cursor` of the answer before."
    )

    @property
    def is_filtering(self) -> bool:
        """Whether any filter is given."""
        return bool(self.status or self.type or self.queue or self.tag) or not (
            self.created_after is None and self.created_before is None
        )

    @model_validator(mode="after")
    def _explicit(self) -> CancelJobs:
        ended = [state.value for state in self.status if state.is_terminal]
        if ended:
            raise ValueError(f"a job that is {ended[0]} has ended and cannot be cancelled")
        if not self.is_filtering and not self.all:
            raise ValueError("give a filter, or all: true to cancel every open job of yours")
        if self.is_filtering and self.all:
            raise ValueError("give a filter or all: true, not both")
        return self


class CancelledJobs(BaseModel):
    """What one call came to. `next_cursor` is null when all jobs were looked at; otherwise send it with the same body."""

    matched: int = Field(description="How many open jobs the filter let through.")
    cancelled: int = Field(description="How many of them were waiting, and are cancelled.")
    cancelling: int = Field(description="How many of them run, and were asked to stop.")
    next_cursor: str | None = None

    def plus(self, before: CancelledJobs) -> CancelledJobs:
        """Add what the calls before came to."""
        return CancelledJobs(
            matched=self.matched + before.matched,
            cancelled=self.cancelled + before.cancelled,
            cancelling=self.cancelling + before.cancelling,
            next_cursor=self.next_cursor,
        )
