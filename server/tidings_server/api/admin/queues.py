"""Queues: how they stand over all shards, paused, resumed and drained live, and purged."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, Final

import orjson
from aiohttp import web

from tidings.protocol.admin import Purge, Purged, Queue, QueueList
from tidings.protocol.errors import InvalidInput, NotFound, PayloadTooLarge, UnsupportedMediaType
from tidings_tasks.store import commands, iso_time
from tidings_tasks.store.limits import QueueInfo, QueueLimits, QueueState

from ...context import REGISTRY, SETTINGS, STORE
from ..answers import json_answer
from ..body import read_optional_json
from ..cursors import make_cursor, read_cursor
from ..route import Answer, Route, identity_of
from .shards import over_shards

__all__ = ["MAX_PAGES", "PAGE_JOBS", "ROUTES"]

PAGE_JOBS = 500
MAX_PAGES = 20
_PLACE: Final = re.compile(r"([0-9]{1,6}):((?:[0-9A-HJKMNP-TV-Z]{26}s[0-9]{1,6})?)")
# Of shards that differ, as after a fault in the middle of a change, the one that holds jobs back is told.
_STRICTEST: Final = (QueueState.ACTIVE, QueueState.DRAINING, QueueState.PAUSED)


async def list_queues(request: web.Request) -> web.StreamResponse:
    """Answer every known queue, by name."""
    return json_answer({"queues": await _read(request, sorted(await _known(request)))})


async def pause(request: web.Request) -> web.StreamResponse:
    """Let no job of the queue begin; those that run go on."""
    return await _set_state(request, QueueState.PAUSED)


async def resume(request: web.Request) -> web.StreamResponse:
    """Let the queue's jobs begin again, and take new ones."""
    return await _set_state(request, QueueState.ACTIVE)


async def drain(request: web.Request) -> web.StreamResponse:
    """Take no new jobs; those that are there run."""
    return await _set_state(request, QueueState.DRAINING)


async def purge(request: web.Request) -> web.StreamResponse:
    """Cancel the waiting jobs of the queue, or only count them."""
    name = await _queue_of(request)
    body = await read_optional_json(request, Purge)
    store, by = request.app[STORE], orjson.dumps(identity_of(request).subject)
    shard, after_id = _read_place(body.cursor, store.keyspace.shards)
    matched = purged = 0
    for _ in range(MAX_PAGES):
        page = await store.run(
            commands.purge_queue(shard, name, by=by, after_id=after_id, limit=PAGE_JOBS, dry_run=body.dry_run)
        )
        matched += page.waiting
        purged += page.cancelled
        shard, after_id = (shard, page.next_id) if page.next_id is not None else (shard + 1, "")
        if shard == store.keyspace.shards:
            return json_answer({"matched": matched, "purged": purged, "next_cursor": None})
    cursor = make_cursor(f"{shard}:{after_id}")
    return json_answer({"matched": matched, "purged": purged, "next_cursor": cursor})


async def _set_state(request: web.Request, state: QueueState) -> web.StreamResponse:
    name = await _queue_of(request)
    await over_shards(request.app[STORE], lambda shard: commands.set_queue_state(shard, name, state))
    (view,) = await _read(request, [name])
    return json_answer(view)


async def _known(request: web.Request) -> set[str]:
    """Return the declared queues, and those that the store has jobs of, such as a plain actor's."""
    used = await over_shards(request.app[STORE], lambda shard: commands.list_queues(shard))
    return {
        *request.app[REGISTRY].queues,
        *request.app[SETTINGS].queues,
        *(name for names in used for name in names),
    }


async def _queue_of(request: web.Request) -> str:
    """Return the queue in the request's path.

    Raises:
        NotFound: nobody declared it, and no job is in it; the detail names those that look alike.
    """
    name, known = request.match_info["name"], await _known(request)
    if name not in known:
        near = difflib.get_close_matches(name[:128], known, n=2, cutoff=0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; known are {', '.join(sorted(known))}"
        raise NotFound(f"there is no queue {name[:128]!r}{hint}")
    return name


async def _read(request: web.Request, names: Sequence[str]) -> list[dict[str, Any]]:
    shards = await over_shards(request.app[STORE], lambda shard: commands.read_queues(shard, names))
    policies = request.app[SETTINGS].queues
    return [
        _view(of_shards, policies[name].model_dump(mode="json") if name in policies else None)
        for name, of_shards in zip(names, zip(*shards, strict=True), strict=True)
    ]


def _view(of_shards: Sequence[QueueInfo], policy: dict[str, Any] | None) -> dict[str, Any]:
    until_ms = max((info.rate_limited_until_ms or 0 for info in of_shards), default=0)
    return {
        "name": of_shards[0].name,
        "state": max((info.state for info in of_shards), key=_STRICTEST.index).value,
        "queued": sum(info.queued for info in of_shards),
        "parked": sum(info.parked for info in of_shards),
        "running": sum(info.running for info in of_shards),
        "rate_limited_until": iso_time(until_ms) if until_ms else None,
        "limits": _limits_view(of_shards[0].limits),
        "policy": policy,
    }


def _limits_view(limits: QueueLimits) -> dict[str, Any]:
    return {
        "max_length": limits.max_length,
        "max_running": limits.max_running,
        "rate": None if limits.rate is None else str(limits.rate),
        "rate_per_owner": None if limits.rate_per_owner is None else str(limits.rate_per_owner),
        "rate_per_org": None if limits.rate_per_org is None else str(limits.rate_per_org),
    }


def _read_place(cursor: str | None, shards: int) -> tuple[int, str]:
    def is_place(text: str) -> bool:
        match = _PLACE.fullmatch(text)
        return match is not None and int(match[1]) < shards

    match = _PLACE.fullmatch(read_cursor(cursor, is_place) or "0:")
    assert match is not None
    return int(match[1]), match[2]


_EXAMPLE: Final[dict[str, Any]] = {
    "name": "exports", "state": "active", "queued": 12, "parked": 9, "running": 5, "rate_limited_until": None,
    "limits": {
        "max_length": None, "max_running": None, "rate": None, "rate_per_owner": "10/min", "rate_per_org": None,
    },
    "policy": {"name": "exports", "priority": 3, "concurrency": 5, "timeout_s": 300.0},
}  # fmt: skip


def _steering(action: str, handle: Any, summary: str, description: str) -> Route:
    return Route(
        method="POST",
        path=f"/api/admin/queues/{{name}}/{action}",
        name=f"{action}Queue",
        handle=handle,
        tag="admin",
        summary=summary,
        description=description,
        answers=(Answer(description="The queue as it stands now.", model=Queue, example=_EXAMPLE),),
        errors=(NotFound,),
        is_admins=True,
    )


ROUTES = (
    Route(
        method="GET",
        path="/api/admin/queues",
        name="listQueues",
        handle=list_queues,
        tag="admin",
        summary="List the queues",
        description="How they stand over the whole installation, what limits them, and how this server's settings declare them.",
        answers=(Answer(description="All queues.", model=QueueList, example={"queues": [_EXAMPLE]}),),
        is_admins=True,
    ),
    _steering("pause", pause, "Pause a queue", "Its jobs wait, at once on all workers; what runs goes on."),
    _steering("resume", resume, "Resume a queue", "Its jobs run again, and new ones are taken."),
    _steering(
        "drain",
        drain,
        "Drain a queue",
        "New jobs are refused with `queue_draining`; those that are there run.",
    ),
    Route(
        method="POST",
        path="/api/admin/queues/{name}/purge",
        name="purgeQueue",
        handle=purge,
        tag="admin",
        summary="Cancel a queue's waiting jobs",
        description=(
            "Of all owners. With `dry_run`, the default, it only counts. A call looks at "
            f"{PAGE_JOBS * MAX_PAGES:,} open jobs at most; `next_cursor` says that there are more: send it with the same body."
        ),
        body=Purge,
        body_required=False,
        body_example={"dry_run": False},
        answers=(
            Answer(
                description="What was done, or would be.",
                model=Purged,
                example={"matched": 37, "purged": 37, "next_cursor": None},
            ),
        ),
        errors=(NotFound, InvalidInput, PayloadTooLarge, UnsupportedMediaType),
        is_admins=True,
    ),
)
