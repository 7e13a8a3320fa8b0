"""Many dead letters at once: counted first, then tried again or removed, so many a call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from tidings.protocol.admin import DeadFilter, Purged, Retried
from tidings.protocol.errors import InvalidInput, PayloadTooLarge, UnsupportedMediaType
from tidings_tasks.store import JobRecord

from ...context import STORE
from ..answers import json_answer
from ..body import read_json
from ..cursors import make_cursor
from ..deleting import delete_job
from ..route import Answer, Route
from .dead_reading import count_dead, read_dead, read_place
from .retrying import STORED, retry_dead

__all__ = ["MAX_PAGES", "PAGE_JOBS", "ROUTES"]

PAGE_JOBS = 50
MAX_PAGES = 20


class _Walk:
    """One call's way through the dead letters; ``next_cursor`` says where the next one begins."""

    def __init__(self, request: web.Request, wanted: DeadFilter) -> None:
        self._store = request.app[STORE]
        self._wanted = wanted
        self._place: str | None = read_place(wanted.cursor)

    @property
    def next_cursor(self) -> str | None:
        return None if self._place is None else make_cursor(self._place)

    async def pages(self) -> AsyncIterator[list[JobRecord]]:
        for _ in range(MAX_PAGES):
            if self._place is None:
                return
            page = await read_dead(self._store, self._wanted, self._place, PAGE_JOBS)
            yield page.records
            # Only now, so that a fault leaves the page to the next call.
            self._place = page.next


async def retry(request: web.Request) -> web.StreamResponse:
    """Submit what the filter lets through again, or only count it."""
    wanted, _ = await read_json(request, DeadFilter)
    walk = _Walk(request, wanted)
    if wanted.dry_run:
        matched = await count_dead(request.app[STORE], wanted)
        return json_answer({"matched": matched, "retried": 0, "refused": 0, "next_cursor": None})
    matched = retried = 0
    async for records in walk.pages():
        made = await retry_dead(request, records)
        matched += len(records)
        retried += sum(entry.outcome in STORED for entry in made)
    return json_answer(
        {
            "matched": matched,
            "retried": retried,
            "refused": matched - retried,
            "next_cursor": walk.next_cursor,
        }
    )


async def purge(request: web.Request) -> web.StreamResponse:
    """Remove what the filter lets through with all that is kept of it, or only count it."""
    wanted, _ = await read_json(request, DeadFilter)
    walk = _Walk(request, wanted)
    if wanted.dry_run:
        matched = await count_dead(request.app[STORE], wanted)
        return json_answer({"matched": matched, "purged": 0, "next_cursor": None})
    matched = purged = 0
    async for records in walk.pages():
        matched += len(records)
        for record in records:
            purged += await delete_job(request.app, record) == "deleted"
    return json_answer({"matched": matched, "purged": purged, "next_cursor": walk.next_cursor})


_BOUND: Final = (
    "With `dry_run`, the default, it only counts. Without a filter, `all: true` says that every one is meant. A call takes "
    f"{PAGE_JOBS * MAX_PAGES:,} at most; `next_cursor` says that there may be more: send it with the same body."
)
_EXAMPLE: Final = {"queue": "reports", "fingerprint": "3f0a9c1d2b4e5f60", "dry_run": False}

ROUTES = (
    Route(
        method="POST",
        path="/api/admin/dead/retry",
        name="retryDeadLetters",
        handle=retry,
        tag="admin",
        summary="Submit dead letters again by filter",
        description=f"Each makes a new job of the same owner, once, and is no dead letter any more. {_BOUND}",
        body=DeadFilter,
        body_example=_EXAMPLE,
        answers=(
            Answer(
                description="What was done, or would be.",
                model=Retried,
                example={"matched": 12, "retried": 12, "refused": 0, "next_cursor": None},
            ),
        ),
        errors=(InvalidInput, PayloadTooLarge, UnsupportedMediaType),
        is_admins=True,
    ),
    Route(
        method="POST",
        path="/api/admin/dead/purge",
        name="purgeDeadLetters",
        handle=purge,
        tag="admin",
        summary="Delete dead letters by filter",
        description=f"The jobs are deleted, with their logs and files. {_BOUND}",
        body=DeadFilter,
        body_example=_EXAMPLE,
        answers=(
            Answer(
                description="What was done, or would be.",
                model=Purged,
                example={"matched": 12, "purged": 12, "next_cursor": None},
            ),
        ),
        errors=(InvalidInput, PayloadTooLarge, UnsupportedMediaType),
        is_admins=True,
    ),
)
