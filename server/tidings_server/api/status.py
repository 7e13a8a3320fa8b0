"""A job's compact status, for pollers: ETag, 304, and waiting for a change."""

from __future__ import annotations

import time

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from tidings.protocol import JobStatus, Position
from tidings.protocol.errors import JobNotFound, RateLimited, ServerDraining
from tidings_tasks.store import JobRecord

from ..context import FORECAST, RELAY, STREAMS
from ..streams import Ended
from .access import find_job
from .answers import json_answer
from .conditional import etag_of, matches
from .examples import STATUS
from .positions import Wait
from .route import Answer, HeaderField, Route, identity_of, query_of

__all__ = ["ROUTES"]


class StatusQuery(BaseModel):
    """The query of the status call."""

    model_config = ConfigDict(extra="forbid")

    wait: Wait = 0


async def read_status(request: web.Request) -> web.StreamResponse:
    """Answer the job's status, now or as soon as it has changed."""
    wait_s = query_of(request, StatusQuery).wait
    known = request.headers.getall("If-None-Match", [])
    record = await find_job(request)
    first = record.position
    is_news = bool(known) and not matches(known, first)
    if wait_s > 0 and not is_news and not record.state.is_terminal:
        await _wait_for_change(request, record, wait_s)
        record = await find_job(request)
        is_news = record.position != first
    headers = _headers(record)
    if known and not is_news and matches(known, record.position):
        return web.Response(status=304, headers=headers)
    [hints] = await request.app[FORECAST].hints(record)
    return json_answer(record.status_view() | hints, headers=headers)


async def _wait_for_change(request: web.Request, record: JobRecord, wait_s: float) -> None:
    with request.app[STREAMS].open(request, identity_of(request), "poll") as stream:
        at = Position(record.epoch, record.head)
        async with request.app[RELAY].follow(record.id, at) as follower:
            try:
                await stream.wait_for(follower.read(limit=1, wait_s=wait_s))
            except Ended:
                return


def _headers(record: JobRecord) -> dict[str, str]:
    headers = {
        "ETag": etag_of(record.position),
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization, Accept",
    }
    if not record.state.is_terminal:
        headers["Retry-After"] = str(_retry_after_s(record))
    return headers


def _retry_after_s(record: JobRecord) -> int:
    """A young job may end any moment; an old one can be asked about less often."""
    age_s = time.time() - record.created_ms / 1000
    return 1 if age_s < 10 else 2 if age_s < 60 else 5


_HEADERS = (
    HeaderField("ETag", 'The position, as `W/"<position>"`.'),
    HeaderField("Retry-After", "Seconds until it is worth asking again; absent when the job has ended.", {"type": "integer"}),
)  # fmt: skip

ROUTES = (
    Route(
        method="GET",
        path="/api/jobs/{id}/status",
        name="readJobStatus",
        handle=read_status,
        tag="jobs",
        summary="Poll a job's status",
        description=(
            "Send the last ETag as `If-None-Match` to be answered 304 while nothing has changed, and `wait` to be "
            "answered when something does."
        ),
        query=StatusQuery,
        headers=(HeaderField("If-None-Match", "The ETag of an earlier answer."),),
        answers=(
            Answer(description="The status.", model=JobStatus, headers=_HEADERS, example=STATUS),
            Answer(status=304, description="Nothing has changed.", headers=_HEADERS),
        ),
        errors=(JobNotFound, RateLimited, ServerDraining),
    ),
)
