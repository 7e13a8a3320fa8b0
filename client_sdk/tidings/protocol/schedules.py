"""What the calls about schedules answer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

__all__ = ["ScheduleInfo", "SchedulePage", "ScheduleRun", "ScheduleRuns", "ScheduleSkip"]


class ScheduleSkip(BaseModel):
    """A run that was not made."""

    due_at: AwareDatetime
    reason: str = Field(
        description="`overlap`: an earlier job has not ended; `full`, `draining`: the queue takes none; or what is wrong with it."
    )
    job_id: str | None = Field(default=None, description="The job in the way.")


class ScheduleInfo(BaseModel):
    """A schedule, and how it stands."""

    name: str
    type: str
    input: dict[str, Any]
    owner: str
    org: str | None
    cron: str | None
    every_s: float | None
    time_zone: str
    overlap: Literal["skip", "queue", "replace"]
    catch_up: Literal["none", "last", "all"]
    catch_up_limit: int
    on_time_s: float
    jitter_s: float
    expires_s: float | None
    queue: str | None
    priority: int | None
    tags: list[str]
    enabled: bool
    origin: Literal["settings", "api"] = Field(description="`settings`: it is changed there alone.")
    paused: bool
    next_run_at: AwareDatetime | None = Field(description="Null while it is paused or disabled.")
    last_due_at: AwareDatetime | None = Field(description="The newest due time that was dealt with.")
    last_run_at: AwareDatetime | None
    last_job_id: str | None
    last_skip: ScheduleSkip | None
    runs: int
    skipped: int
    missed: int = Field(description="Due times that nothing was there to run in time.")
    open_jobs: list[str] = Field(
        description="Its jobs that had not ended when it was due last, and those made since."
    )


class SchedulePage(BaseModel):
    """By name. `next_cursor` is null on the last page."""

    schedules: list[ScheduleInfo]
    next_cursor: str | None


class ScheduleRun(BaseModel):
    """A due time."""

    at: AwareDatetime = Field(description="In UTC.")
    local: str = Field(
        description="In the schedule's time zone, with its offset then.",
        json_schema_extra={"format": "date-time"},
    )


class ScheduleRuns(BaseModel):
    """The due times to come, as if it were neither paused nor disabled."""

    name: str
    time_zone: str
    runs: list[ScheduleRun]
