"""A schedule: which job is submitted, whose it is, when it is due, and what happens when runs overlap or were missed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from tidings.protocol import MAX_PRIORITY

from ..store import Tenant
from .cron import Cron
from .timing import Interval, Timing, find_zone

__all__ = ["CatchUp", "Overlap", "Schedule", "ScheduleFields", "ScheduleName", "overlay_schedules"]

_YEAR_S = 366 * 86_400
_DAY_S = 86_400

ScheduleName = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]
_Name = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]
_Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")]


class Overlap(StrEnum):
    """What happens when a run is due while an earlier one has not ended."""

    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"


class CatchUp(StrEnum):
    """What happens with runs that were due while nothing could run them."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class ScheduleFields(BaseModel):
    """A schedule without its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    type: _Name = Field(description="The job type to run.", examples=["report.render"])
    input: dict[str, Any] = Field(
        default_factory=dict, description="Validated against the job type's input model."
    )
    owner: str = Field("system", min_length=1, max_length=256, description="Whose the jobs are.")
    org: str | None = Field(None, min_length=1, max_length=256, description="The owner's organisation.")
    cron: str | None = Field(
        None,
        max_length=200,
        description="Minute, hour, day of month, month, day of week; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.",
        examples=["30 2 * * MON-FRI"],
    )
    every_s: float | None = Field(
        None,
        ge=0.1,
        le=_YEAR_S,
        description="Instead of `cron`: every so many seconds, counted from 1970-01-01T00:00Z.",
    )
    time_zone: str = Field(
        "UTC", max_length=64, description="The IANA time zone of `cron`, such as `Europe/Berlin`."
    )
    overlap: Overlap = Field(
        Overlap.SKIP,
        description="When a run is due before the last one has ended: `skip` it, `queue` it behind, or `replace` the last one.",
    )
    catch_up: CatchUp = Field(
        CatchUp.LAST,
        description="Of runs that were due while nothing could run them: `none`, the `last`, or `all` (with `overlap` `queue`).",
    )
    catch_up_limit: int = Field(
        100, ge=1, le=1000, description="With `catch_up` `all`: how many, the newest."
    )
    on_time_s: float = Field(
        60, ge=1, le=_DAY_S, description="With `catch_up` `none`: how late a run may begin."
    )
    jitter_s: float = Field(
        0, ge=0, le=_DAY_S, description="Begin each run up to so much later, so that many don't meet."
    )
    expires_s: float | None = Field(
        None,
        ge=1,
        le=_YEAR_S,
        description="A job that has not begun so long after it was due fails as `expired`.",
    )
    queue: _Name | None = Field(None, description="Instead of the job type's own queue.")
    priority: int | None = Field(None, ge=1, le=MAX_PRIORITY, description="1 is first.")
    tags: tuple[_Tag, ...] = Field((), max_length=16)
    enabled: bool = Field(True, description="Whether it is ever due.")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        find_zone(value)
        return value

    @field_validator("cron")
    @classmethod
    def _ever_due(cls, value: str | None) -> str | None:
        if value is not None:
            Cron(value, find_zone("UTC"))
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.cron is None) == (self.every_s is None):
            raise ValueError("cron: give either cron or every_s")
        if self.cron is None and self.time_zone != "UTC":
            raise ValueError("time_zone: goes with cron; every_s counts seconds")
        if self.catch_up is CatchUp.ALL and self.overlap is not Overlap.QUEUE:
            raise ValueError('catch_up: all runs one after the other, which needs overlap = "queue"')
        return self

    @cached_property
    def timing(self) -> Timing:
        """When it is due, whether it is enabled or not."""
        if self.every_s is not None:
            return Interval(round(self.every_s * 1000))
        assert self.cron is not None
        return Cron(self.cron, find_zone(self.time_zone))

    @property
    def tenant(self) -> Tenant:
        """Whose the jobs are."""
        return Tenant(self.owner, self.org)


class Schedule(ScheduleFields):
    """A schedule. Its name is unique in an installation."""

    name: ScheduleName = Field(examples=["nightly-report"])


def overlay_schedules(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Name each declared schedule; not validated yet."""
    return {
        name: {"name": name, **fields} if isinstance(fields, Mapping) else fields
        for name, fields in declared.items()
    }
