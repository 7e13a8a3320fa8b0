"""Schedules: made, changed, paused and run by hand, and when they are due."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from tidings.protocol import Job
from tidings.protocol.errors import (
    FieldError,
    InvalidInput,
    JobNotFound,
    PayloadTooLarge,
    QueueDraining,
    QueueFull,
    ScheduleConflict,
    ScheduleMissing,
    UnknownJobType,
    UnsupportedMediaType,
)
from tidings.protocol.schedules import ScheduleInfo, SchedulePage, ScheduleRuns
from tidings_tasks.schedules import Schedule, ScheduleFields
from tidings_tasks.schedules.book import Entry, ScheduleBook
from tidings_tasks.schedules.timing import find_zone
from tidings_tasks.store import commands, iso_time

from ...context import REGISTRY, SETTINGS, STORE
from ..answers import json_answer
from ..body import read_json
from ..cursors import make_cursor, read_cursor
from ..examples import JOB
from ..route import Answer, HeaderField, Route, query_of

__all__ = ["ROUTES"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ScheduleListQuery(BaseModel):
    """A page of schedules."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=200, description="At most so many schedules.")
    cursor: str | None = Field(default=None, max_length=128, description="`next_cursor` of the page before.")


class ScheduleNextQuery(BaseModel):
    """How far to look ahead."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(default=10, ge=1, le=100, description="How many due times.")


async def list_schedules(request: web.Request) -> web.StreamResponse:
    """Answer a page, by name."""
    query = query_of(request, ScheduleListQuery)
    found = await _book(request).page(after=read_cursor(query.cursor, _NAME.fullmatch), limit=query.limit + 1)
    page = found[: query.limit]
    cursor = make_cursor(page[-1].schedule.name) if len(found) > query.limit else None
    return json_answer({"schedules": [_view(entry) for entry in page], "next_cursor": cursor})


async def create(request: web.Request) -> web.StreamResponse:
    """Store a new schedule; nothing is stored before everything was checked."""
    schedule, _ = await read_json(request, Schedule)
    entry = await _book(request).create(_of_known_type(request, schedule))
    headers = {"Location": f"/api/admin/schedules/{entry.schedule.name}"}
    return json_answer(_view(entry), status=201, headers=headers)


async def read(request: web.Request) -> web.StreamResponse:
    """Answer one schedule."""
    return json_answer(_view(await _book(request).get(_name_of(request))))


async def replace(request: web.Request) -> web.StreamResponse:
    """Put another definition in its place."""
    name = _name_of(request)
    fields, _ = await read_json(request, ScheduleFields)
    schedule = Schedule.model_validate({**fields.model_dump(), "name": name})
    return json_answer(_view(await _book(request).replace(_of_known_type(request, schedule))))


async def delete(request: web.Request) -> web.StreamResponse:
    """Remove it; its jobs stay."""
    await _book(request).delete(_name_of(request))
    return web.Response(status=204)


async def pause(request: web.Request) -> web.StreamResponse:
    """Let it rest."""
    return json_answer(_view(await _book(request).pause(_name_of(request))))


async def resume(request: web.Request) -> web.StreamResponse:
    """Let it go on."""
    return json_answer(_view(await _book(request).resume(_name_of(request))))


async def run(request: web.Request) -> web.StreamResponse:
    """Store a job of it now."""
    job_id = await _book(request).run(_name_of(request))
    record = await request.app[STORE].run(commands.read_job(job_id))
    if record is None:
        raise JobNotFound
    return json_answer(record.view(), status=202, headers={"Location": f"/api/jobs/{job_id}"})


async def read_next(request: web.Request) -> web.StreamResponse:
    """Answer when it is due, in UTC and in its time zone."""
    entry, runs = await _book(request).next_runs(
        _name_of(request), query_of(request, ScheduleNextQuery).count
    )
    zone = find_zone(entry.schedule.time_zone)
    return json_answer(
        {
            "name": entry.schedule.name,
            "time_zone": entry.schedule.time_zone,
            "runs": [
                {
                    "at": iso_time(ms),
                    "local": datetime.fromtimestamp(ms / 1000, zone).isoformat(timespec="milliseconds"),
                }
                for ms in runs
            ],
        }
    )


def _book(request: web.Request) -> ScheduleBook:
    return ScheduleBook(request.app[STORE], request.app[REGISTRY], request.app[SETTINGS].queues)


def _name_of(request: web.Request) -> str:
    name = request.match_info["name"]
    if not _NAME.fullmatch(name):
        raise ScheduleMissing(f"there is no schedule {name[:64]!r}")
    return name


def _of_known_type(request: web.Request, schedule: Schedule) -> Schedule:
    try:
        request.app[REGISTRY].get(schedule.type)
    except UnknownJobType as error:
        message = f"{error.detail}; GET /api/job-types lists them"
        entry = FieldError(field="type", code=error.code, message=message)
        raise UnknownJobType(error.detail, errors=[entry]) from error
    return schedule


def _view(entry: Entry) -> dict[str, Any]:
    record = entry.record
    skip = None
    if record.skipped_due_ms is not None:
        skip = {
            "due_at": iso_time(record.skipped_due_ms),
            "reason": record.skipped_why,
            "job_id": record.skipped_for,
        }
    return entry.schedule.model_dump(mode="json") | {
        "origin": record.origin,
        "paused": record.is_paused,
        "next_run_at": None if record.is_paused else _time(record.next_ms),
        "last_due_at": _time(record.last_due_ms),
        "last_run_at": _time(record.last_run_ms),
        "last_job_id": record.last_job_id,
        "last_skip": skip,
        "runs": record.runs,
        "skipped": record.skipped,
        "missed": record.missed,
        "open_jobs": list(record.open_jobs),
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else iso_time(ms)


_BODY: Final[dict[str, Any]] = {
    "name": "nightly-report", "type": "report.render", "input": {"title": "Nightly", "sections": [{"heading": "Ran"}]},
    "cron": "30 2 * * MON-FRI", "time_zone": "Europe/Berlin", "overlap": "skip", "catch_up": "last",
}  # fmt: skip
_EXAMPLE: Final[dict[str, Any]] = {
    **_BODY, "owner": "system", "org": None, "every_s": None, "catch_up_limit": 100, "on_time_s": 60.0, "jitter_s": 0.0,
    "expires_s": None, "queue": None, "priority": None, "tags": [], "enabled": True, "origin": "api", "paused": False,
    "next_run_at": "2026-11-24T01:30:00.000Z", "last_due_at": "2026-11-23T01:30:00.000Z",
    "last_run_at": "2026-11-23T01:30:00.012Z", "last_job_id": "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0", "last_skip": None,
    "runs": 41, "skipped": 0, "missed": 1, "open_jobs": [],
}  # fmt: skip
_ANSWER: Final = Answer(description="The schedule as it stands now.", model=ScheduleInfo, example=_EXAMPLE)
_REFUSALS: Final = (
    ScheduleConflict, InvalidInput, UnknownJobType, PayloadTooLarge, UnsupportedMediaType,
)  # fmt: skip


def _named(method: str, path: str, name: str, handle: Any, summary: str, **more: Any) -> Route:
    """Make a route about one schedule."""
    return Route(
        method=method,
        path=f"/api/admin/schedules/{{name}}{path}",
        name=name,
        handle=handle,
        tag="admin",
        summary=summary,
        errors=(ScheduleMissing, *more.pop("errors", ())),
        answers=more.pop("answers", (_ANSWER,)),
        is_admins=True,
        **more,
    )


ROUTES = (
    Route(
        method="GET",
        path="/api/admin/schedules",
        name="listSchedules",
        handle=list_schedules,
        tag="admin",
        summary="List the schedules",
        query=ScheduleListQuery,
        answers=(
            Answer(
                description="A page, by name.",
                model=SchedulePage,
                example={"schedules": [_EXAMPLE], "next_cursor": None},
            ),
        ),
        is_admins=True,
    ),
    Route(
        method="POST",
        path="/api/admin/schedules",
        name="createSchedule",
        handle=create,
        tag="admin",
        summary="Make a schedule",
        description="From now on its jobs are submitted by the clock, each due time once, by whichever server or worker comes first.",
        body=Schedule,
        body_example=_BODY,
        answers=(
            Answer(
                status=201,
                description="It is stored.",
                model=ScheduleInfo,
                headers=(HeaderField("Location", "Where the schedule is."),),
                example=_EXAMPLE,
            ),
        ),
        errors=_REFUSALS,
        is_admins=True,
    ),
    _named("GET", "", "readSchedule", read, "Read a schedule"),
    _named(
        "PUT", "", "replaceSchedule", replace, "Change a schedule",
        description="Owner and org stay as they are. With the same timing it is due when it was before.",
        body=ScheduleFields,
        body_example={name: value for name, value in _BODY.items() if name != "name"},
        errors=_REFUSALS,
    ),
    _named(
        "DELETE", "", "deleteSchedule", delete, "Delete a schedule",
        description="Its jobs stay.",
        answers=(Answer(status=204, description="It is gone."),),
        errors=(ScheduleConflict,),
    ),
    _named(
        "POST", "/pause", "pauseSchedule", pause, "Pause a schedule",
        description="What is due meanwhile is passed over. It survives restarts, also of one that the settings declare.",
    ),
    _named(
        "POST", "/resume", "resumeSchedule", resume, "Resume a schedule",
        description="It goes on with its next due time; nothing is caught up.",
    ),
    _named(
        "POST", "/run", "runSchedule", run, "Run a schedule now",
        description="One job more, whatever else is open, and also while it is paused.",
        answers=(
            Answer(
                status=202,
                description="The job is stored.",
                model=Job,
                headers=(HeaderField("Location", "Where the job is."),),
                example=JOB,
            ),
        ),
        errors=(ScheduleConflict, InvalidInput, UnknownJobType, QueueFull, QueueDraining),
    ),
    _named(
        "GET", "/next", "readScheduleRuns", read_next, "Read when a schedule is due",
        query=ScheduleNextQuery,
        answers=(
            Answer(
                description="The due times to come.",
                model=ScheduleRuns,
                example={
                    "name": "nightly-report",
                    "time_zone": "Europe/Berlin",
                    "runs": [{"at": "2026-11-24T01:30:00.000Z", "local": "2026-11-24T02:30:00.000+01:00"}],
                },
            ),
        ),
    ),
)  # fmt: skip
