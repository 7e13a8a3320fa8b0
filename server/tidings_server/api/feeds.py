"""Feeds: the lifecycle of all jobs of an owner, an org or the installation, as JSON or SSE."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from tidings.protocol import FeedPage, Position, read_head
from tidings.protocol.errors import Forbidden, InvalidInput, RateLimited, ServerDraining
from tidings_tasks.store import Keyspace

from ..auth import ADMIN, ORG_READ, Identity
from ..context import RELAY, STORE, STREAMS
from ..relay import FeedBatch, FeedFollower
from ..relay.entry import FeedSource
from ..relay.topic import PAGE_BYTES
from ..streams import Ended, Stream
from .answers import json_answer
from .examples import FEED_PAGE
from .pacing import Pacer
from .positions import After, Wait, resume_point
from .route import Answer, HeaderField, Route, identity_of, query_of
from .sse import EVENT_STREAM, HEARTBEAT_S, EventStream, Message, stream_to_end, wants_event_stream

__all__ = ["ROUTES"]

_MAX_EVENTS = 1000
_STREAM_PAGE_EVENTS = 200

FeedName = Literal["mine", "org", "all"]
FeedEntries = Sequence[tuple[str | None, bytes]]


class FeedQuery(BaseModel):
    """The query of the feed call."""

    model_config = ConfigDict(extra="forbid")

    feed: FeedName = Field(
        default="mine", description="`mine`, `org` (scope `org:read`) or `all` (scope `admin`)."
    )
    after: After = None
    wait: Wait = 0
    limit: int = Field(default=_MAX_EVENTS, ge=1, le=_MAX_EVENTS, description="At most so many events.")


async def read_feed(request: web.Request) -> web.StreamResponse:
    """Answer a snapshot, or what followed a position, as the request's ``Accept`` asks for it."""
    query = query_of(request, FeedQuery)
    shard, name = _place_of(request.app[STORE].keyspace, identity_of(request), query.feed)
    after = resume_point(request, query.after)
    if wants_event_stream(request):
        return await _stream(request, query.feed, shard, name, after)
    source = FeedSource(request.app[STORE], shard, name)
    found = await source.read(after, limit=query.limit, max_bytes=PAGE_BYTES)
    if query.wait > 0 and not found.entries and found.jobs is None:
        page = await _wait_for_page(request, query, shard, name, after)
    else:
        entries = [(entry.position, entry.text) for entry in found.entries]
        page = _page(query.feed, FeedBatch(entries, str(found.end), found.reset, found.jobs), entries)
    return json_answer(page, headers={"Vary": "Authorization, Accept"})


async def _wait_for_page(
    request: web.Request, query: FeedQuery, shard: int, name: str, after: Position
) -> dict[str, Any]:
    pacer = Pacer()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + query.wait
    batch = FeedBatch([], str(after))
    with request.app[STREAMS].open(request, identity_of(request), "poll") as stream:
        async with request.app[RELAY].follow_feed(shard, name, after) as follower:
            try:
                while True:
                    left_s = max(0.0, deadline - loop.time())
                    batch = await stream.wait_for(
                        follower.read(limit=query.limit, wait_s=pacer.pause_s(left_s))
                    )
                    ready = pacer.take(batch.entries)
                    if ready or batch.jobs is not None or left_s <= 0:
                        return _page(query.feed, batch, ready)
            except Ended:
                return _page(query.feed, batch, [])


async def _stream(
    request: web.Request, feed: FeedName, shard: int, name: str, after: Position
) -> web.StreamResponse:
    with request.app[STREAMS].open(request, identity_of(request), "sse") as stream:
        async with request.app[RELAY].follow_feed(shard, name, after) as follower:
            out = EventStream()
            await out.start(request)
            await stream_to_end(out, _write_feed(out, stream, follower, feed))
            return out.response


async def _write_feed(out: EventStream, stream: Stream, follower: FeedFollower, feed: FeedName) -> None:
    pacer = Pacer()
    loop = asyncio.get_running_loop()
    beat_at = loop.time() + HEARTBEAT_S
    while True:
        pause_s = pacer.pause_s(max(0.0, beat_at - loop.time()))
        batch = await stream.wait_for(follower.read(limit=_STREAM_PAGE_EVENTS, wait_s=pause_s))
        messages: list[Message] = []
        if batch.jobs is not None:
            kind = "reset" if batch.reset else "snapshot"
            body = {"feed": feed, "jobs": [job.view() for job in batch.jobs], "position": batch.position}
            messages.append(Message(kind, batch.position, orjson.dumps(body)))
        for position, envelope in pacer.take(batch.entries):
            data = orjson.dumps(_event(feed, position, envelope))
            messages.append(Message(read_head(envelope).kind, position, data))
        if messages:
            await out.send(messages)
            beat_at = loop.time() + HEARTBEAT_S
        elif loop.time() >= beat_at:
            await out.beat()
            beat_at = loop.time() + HEARTBEAT_S


def _place_of(keyspace: Keyspace, caller: Identity, feed: FeedName) -> tuple[int, str]:
    """Return the shard and the name of the feed that the caller asks for.

    Raises:
        Forbidden: the token does not allow it.
    """
    tenant = caller.tenant
    if feed == "mine":
        return keyspace.shard_of_tenant(tenant), f"o:{tenant.scope}"
    if feed == "org":
        if ORG_READ not in caller.scopes or tenant.org_scope is None:
            raise Forbidden("the feed `org` needs the scope `org:read` and a token with an `org`")
        return keyspace.shard_of_tenant(tenant), f"g:{tenant.org_scope}"
    if ADMIN not in caller.scopes:
        raise Forbidden("the feed `all` needs the scope `admin`")
    return 0, "all"


def _page(feed: FeedName, batch: FeedBatch, entries: FeedEntries) -> dict[str, Any]:
    return {
        "feed": feed,
        "events": [_event(feed, position, envelope) for position, envelope in entries],
        "position": batch.position,
        "jobs": None if batch.jobs is None else [job.view() for job in batch.jobs],
        "reset": batch.reset,
    }


def _event(feed: FeedName, position: str | None, envelope: bytes) -> dict[str, Any]:
    return {"feed": feed, "position": position, "event": orjson.Fragment(envelope)}


ROUTES = (
    Route(
        method="GET",
        path="/api/events",
        name="readFeed",
        handle=read_feed,
        tag="feeds",
        summary="Read or follow a feed",
        description=(
            "Without `after`: the newest 100 open jobs, and the position they stand at. With it: the lifecycle events "
            "that followed, and, while waiting, progress without a position, at most twice a second a job. As "
            "`text/event-stream`: first a `snapshot` event with `{feed, jobs, position}`, then each event under its "
            "kind with `{feed, position, event}`; a `reset` event like `snapshot` when the position was no longer valid."
        ),
        query=FeedQuery,
        headers=(HeaderField("Last-Event-ID", "For a stream: the position to resume from, over `after`."),),
        answers=(
            Answer(
                description="A snapshot, or what followed the position.", model=FeedPage, example=FEED_PAGE
            ),
            Answer(description="The events as they happen.", media_type=EVENT_STREAM),
        ),
        errors=(Forbidden, InvalidInput, RateLimited, ServerDraining),
    ),
)
