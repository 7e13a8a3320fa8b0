"""A job's events from a position: a page of JSON, at once or after waiting, or a stream of SSE."""

from __future__ import annotations

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from tidings.protocol import EventPage, Position, read_head
from tidings.protocol.errors import JobNotFound, RateLimited, ServerDraining
from tidings_tasks.store import commands

from ..context import RELAY, STORE, STREAMS
from ..relay import Batch, Follower
from ..streams import Ended, Stream
from .access import find_job
from .answers import json_answer
from .examples import EVENT_PAGE
from .positions import After, Wait, resume_point
from .route import Answer, HeaderField, Route, identity_of, query_of
from .sse import EVENT_STREAM, HEARTBEAT_S, EventStream, Message, stream_to_end, wants_event_stream

__all__ = ["MAX_EVENTS", "ROUTES"]

MAX_EVENTS = 1000
_STREAM_PAGE_EVENTS = 200


class EventsQuery(BaseModel):
    """The query of the events call."""

    model_config = ConfigDict(extra="forbid")

    after: After = None
    wait: Wait = 0
    limit: int = Field(default=MAX_EVENTS, ge=1, le=MAX_EVENTS, description="At most so many events.")


async def read_events(request: web.Request) -> web.StreamResponse:
    """Answer what followed a position, as the request's ``Accept`` asks for it."""
    query = query_of(request, EventsQuery)
    after = resume_point(request, query.after)
    job_id = (await find_job(request)).id
    if wants_event_stream(request):
        return await _stream(request, job_id, after)
    batch = await _read_now(request, job_id, after, query.limit)
    if query.wait > 0 and not batch.events and not batch.done and batch.reset is None:
        batch = await _read_later(request, job_id, after, query)
    return json_answer(
        {
            "events": [orjson.Fragment(envelope) for envelope in batch.events],
            "position": batch.position,
            "done": batch.done,
            "reset": batch.reset is not None,
            "job": None if batch.reset is None else batch.reset.view(),
        },
        headers={"Vary": "Authorization, Accept"},
    )


async def _read_now(request: web.Request, job_id: str, after: Position, limit: int) -> Batch:
    found = await request.app[STORE].run(commands.read_events(job_id, after, limit=limit))
    if found is None:
        raise JobNotFound
    if found.reset or not found.events:
        at = Position(found.epoch, found.head)
        return Batch(found.events, str(at), found.state.is_terminal, found.job if found.reset else None)
    last = read_head(found.events[-1])
    return Batch(found.events, last.position, last.is_terminal)


async def _read_later(request: web.Request, job_id: str, after: Position, query: EventsQuery) -> Batch:
    nothing = Batch([], str(after), done=False)
    with request.app[STREAMS].open(request, identity_of(request), "poll") as stream:
        async with request.app[RELAY].follow(job_id, after) as follower:
            try:
                return await stream.wait_for(follower.read(limit=query.limit, wait_s=query.wait))
            except Ended:
                return nothing


async def _stream(request: web.Request, job_id: str, after: Position) -> web.StreamResponse:
    with request.app[STREAMS].open(request, identity_of(request), "sse") as stream:
        async with request.app[RELAY].follow(job_id, after) as follower:
            out = EventStream()
            await out.start(request)
            await stream_to_end(out, _write_events(out, stream, follower))
            return out.response


async def _write_events(out: EventStream, stream: Stream, follower: Follower) -> None:
    while True:
        batch = await stream.wait_for(follower.read(limit=_STREAM_PAGE_EVENTS, wait_s=HEARTBEAT_S))
        messages = [_reset_message(batch)] if batch.reset is not None else []
        for envelope in batch.events:
            head = read_head(envelope)
            messages.append(Message(head.kind, head.position, envelope))
        if messages:
            await out.send(messages)
        elif not batch.done:
            await out.beat()
        if batch.done:
            return


def _reset_message(batch: Batch) -> Message:
    """The snapshot, and the position on which ``batch.events`` follow: a terminal event must not look like a repeat."""
    assert batch.reset is not None
    position = batch.position
    if batch.events:
        first = read_head(batch.events[0])
        position = str(Position(first.epoch, first.seq - 1 if first.prev is None else first.prev))
    return Message("reset", position, orjson.dumps({"job": batch.reset.view(), "position": position}))


ROUTES = (
    Route(
        method="GET",
        path="/api/jobs/{id}/events",
        name="readJobEvents",
        handle=read_events,
        tag="jobs",
        summary="Read or follow a job's events",
        description=(
            "As JSON: what followed `after`; with `wait`, as soon as there is something. As `text/event-stream`: "
            "the same without end until the terminal event; `event:` is the kind, `data:` the envelope, `id:` the "
            "position, and a `reset` event brings `{job, position}` when the position was no longer valid."
        ),
        query=EventsQuery,
        headers=(HeaderField("Last-Event-ID", "For a stream: the position to resume from, over `after`."),),
        answers=(
            Answer(description="What followed the position.", model=EventPage, example=EVENT_PAGE),
            Answer(description="The events as they happen.", media_type=EVENT_STREAM),
        ),
        errors=(JobNotFound, RateLimited, ServerDraining),
    ),
)
