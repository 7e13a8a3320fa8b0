"""Dead letters: jobs that failed for good. Listed, grouped by what went wrong, looked at, and tried once more."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from tidings.protocol import Job, JobState, Position
from tidings.protocol.admin import DeadFilter, DeadGroups, DeadLetter, DeadPage
from tidings.protocol.bulk import Word
from tidings.protocol.errors import IllegalState, InvalidInput, JobNotFound, QueueDraining, QueueFull
from tidings_tasks.store import DeadGroup, JobRecord, Outcome, commands, iso_time

from ...context import STORE
from ..accepting import check_stored
from ..access import find_job
from ..answers import json_answer
from ..cursors import make_cursor
from ..examples import AT, DEAD_JOB, JOB
from ..listing import MAX_PAGE_BYTES, MAX_READS
from ..route import Answer, HeaderField, Route, query_of
from .dead_reading import place_of, read_dead, read_place
from .retrying import retry_dead
from .shards import over_shards

__all__ = ["ROUTES"]

_LOG_TAIL = 100
# A job may have a megabyte of input, so a page is read in parts.
_READ_AT_ONCE = 20


class DeadQuery(BaseModel):
    """The query of the list. All filters must hold."""

    model_config = ConfigDict(extra="forbid")

    queue: Word | None = Field(default=None, description="Only jobs of this queue.")
    type: Word | None = Field(default=None, description="Only jobs of this type.")
    fingerprint: Word | None = Field(default=None, description="Only jobs with such an error.")
    limit: int = Field(default=50, ge=1, le=200, description="At most so many jobs.")
    cursor: str | None = Field(default=None, max_length=128, description="`next_cursor` of the page before.")


async def list_dead(request: web.Request) -> web.StreamResponse:
    """Answer a page, bounded in bytes too."""
    query = query_of(request, DeadQuery)
    wanted = DeadFilter(queue=query.queue, type=query.type, fingerprint=query.fingerprint)
    place: str | None = read_place(query.cursor)
    views: list[orjson.Fragment] = []
    size_bytes = 0
    for _ in range(MAX_READS):
        if place is None or len(views) == query.limit:
            break
        wanted_jobs = min(_READ_AT_ONCE, query.limit - len(views))
        found = await read_dead(request.app[STORE], wanted, place, wanted_jobs)
        for record in found.records:
            text = orjson.dumps(_view(record))
            size_bytes += len(text)
            if views and size_bytes > MAX_PAGE_BYTES:
                return _page(views, place)
            views.append(orjson.Fragment(text))
            place = place_of(record)
        place = found.next
    return _page(views, place)


def _page(views: list[orjson.Fragment], place: str | None) -> web.Response:
    return json_answer({"jobs": views, "next_cursor": None if place is None else make_cursor(place)})


async def list_groups(request: web.Request) -> web.StreamResponse:
    """Answer the groups, the largest first, added up over the shards."""
    merged: dict[tuple[str, str], DeadGroup] = {}
    for groups in await over_shards(request.app[STORE], commands.read_dead_groups):
        for group in groups:
            key = (group.fingerprint, group.queue)
            known = merged.get(key)
            merged[key] = group if known is None else _sum(known, group)
    ordered = sorted(merged.values(), key=lambda group: (-group.count, -group.last_ms, group.fingerprint))
    return json_answer({"groups": [_group_view(group) for group in ordered]})


async def inspect(request: web.Request) -> web.StreamResponse:
    """Answer one dead letter whole, with the end of its log."""
    record = await _find_dead(request)
    tail = Position(record.epoch, max(0, record.head - _LOG_TAIL))
    read = await request.app[STORE].run(commands.read_events(record.id, tail, limit=_LOG_TAIL))
    events = [] if read is None else [orjson.Fragment(event) for event in read.events]
    return json_answer({"job": _view(record), "events": events})


async def retry(request: web.Request) -> web.StreamResponse:
    """Submit one dead letter again; a repeat of the call finds the job that the first made."""
    record = await find_job(request)
    if record.state is not JobState.FAILED:
        raise IllegalState(f"the job is {record.state}; only what has failed can be a dead letter")
    (made,) = await retry_dead(request, [record])
    check_stored(request, record.queue, made)
    again = await request.app[STORE].run(commands.read_job(made.id))
    if again is None:
        raise JobNotFound
    headers = {"Location": f"/api/jobs/{again.id}"}
    if made.outcome is Outcome.REPLAYED:
        headers["Idempotent-Replayed"] = "true"
    return json_answer(again.view(), status=202, headers=headers)


async def _find_dead(request: web.Request) -> JobRecord:
    record = await find_job(request)
    if record.fingerprint is None:
        raise JobNotFound("there is no such dead letter")
    return record


def _view(record: JobRecord) -> dict[str, Any]:
    return record.view() | {"stack": record.stack, "fingerprint": record.fingerprint}


def _sum(one: DeadGroup, other: DeadGroup) -> DeadGroup:
    first = min(one, other, key=lambda group: group.first_ms)
    return DeadGroup(
        one.fingerprint,
        one.queue,
        one.type,
        one.code,
        one.error_type,
        first.message,
        one.count + other.count,
        first.first_ms,
        max(one.last_ms, other.last_ms),
    )


def _group_view(group: DeadGroup) -> dict[str, Any]:
    return {
        "fingerprint": group.fingerprint,
        "queue": group.queue,
        "type": group.type,
        "code": group.code,
        "error_type": group.error_type,
        "message": group.message,
        "count": group.count,
        "first_seen": iso_time(group.first_ms),
        "last_seen": iso_time(group.last_ms),
    }


_GROUP: dict[str, Any] = {
    "fingerprint": DEAD_JOB["fingerprint"], "queue": "reports", "type": "report.render", "code": "exception",
    "error_type": "KeyError", "message": "'rows'", "count": 12, "first_seen": AT, "last_seen": AT,
}  # fmt: skip

ROUTES = (
    Route(
        method="GET",
        path="/api/admin/dead",
        name="listDead",
        handle=list_dead,
        tag="admin",
        summary="List dead letters",
        description=(
            "Jobs that failed for good, with the whole error, the latest first. A page may hold fewer than `limit`, even "
            "none, while `next_cursor` says that there is more."
        ),
        query=DeadQuery,
        answers=(
            Answer(description="A page.", model=DeadPage, example={"jobs": [DEAD_JOB], "next_cursor": None}),
        ),
        errors=(InvalidInput,),
        is_admins=True,
    ),
    Route(
        method="GET",
        path="/api/admin/dead/groups",
        name="listDeadGroups",
        handle=list_groups,
        tag="admin",
        summary="Group dead letters by their error",
        answers=(
            Answer(
                description="The groups, the largest first.", model=DeadGroups, example={"groups": [_GROUP]}
            ),
        ),
        is_admins=True,
    ),
    Route(
        method="GET",
        path="/api/admin/dead/{id}",
        name="readDead",
        handle=inspect,
        tag="admin",
        summary="Look at a dead letter",
        description=f"The whole job with its traceback, and the last {_LOG_TAIL} events of its log.",
        answers=(
            Answer(description="The dead letter.", model=DeadLetter, example={"job": DEAD_JOB, "events": []}),
        ),
        errors=(JobNotFound,),
        is_admins=True,
    ),
    Route(
        method="POST",
        path="/api/admin/dead/{id}/retry",
        name="retryDead",
        handle=retry,
        tag="admin",
        summary="Submit a dead letter again",
        description=(
            "Makes a new job of the same owner with `retry_of`, and takes this one out of the dead letters. Within 24 hours a "
            "repeat of the call answers the same new job."
        ),
        answers=(
            Answer(
                status=202,
                description="The new job is stored.",
                model=Job,
                headers=(
                    HeaderField("Location", "Where the job is."),
                    HeaderField("Idempotent-Replayed", "`true` when it was made before.", {"const": "true"}),
                ),
                example=JOB,
            ),
        ),
        errors=(JobNotFound, IllegalState, QueueFull, QueueDraining),
        is_admins=True,
    ),
)
