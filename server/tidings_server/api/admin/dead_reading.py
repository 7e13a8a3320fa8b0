"""Reading dead letters over all shards, the latest first, from a place that means the same in each of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tidings.protocol.admin import DeadFilter
from tidings_tasks.store import DeadPage, JobRecord, Store, commands

from ..cursors import read_cursor
from .shards import over_shards

__all__ = ["DeadJobs", "count_dead", "place_of", "read_dead", "read_place"]

_PLACE: Final = re.compile(r"[0-9]{1,15}:[0-9A-HJKMNP-TV-Z]{26}s[0-9]{1,6}")

Moment = tuple[int, str]
"""When a job died, store ms, and its id, which settles the order of those that died at once."""


@dataclass(frozen=True, slots=True)
class DeadJobs:
    """Dead letters, the latest first. ``next`` is where the next page begins, None at the end."""

    records: list[JobRecord]
    next: str | None


def read_place(cursor: str | None) -> str:
    """Return the place that a cursor names. Raises as ``read_cursor`` does."""
    return read_cursor(cursor, _PLACE.fullmatch)


async def read_dead(store: Store, wanted: DeadFilter, place: str, limit: int) -> DeadJobs:
    """Read at most ``limit`` dead letters from behind a place; fewer, even none, although more follow."""
    pages = await over_shards(
        store,
        lambda shard: commands.list_dead(
            shard,
            queue=wanted.queue or "",
            type=wanted.type or "",
            fingerprint=wanted.fingerprint or "",
            after=place,
            limit=limit,
        ),
    )
    # A shard that has looked no further than here may have something later than what others found below.
    horizon = max((_moment_of(page.next) for page in pages if page.next is not None), default=None)
    records = _merge(pages, horizon)
    if len(records) > limit:
        records = records[:limit]
        return DeadJobs(records, place_of(records[-1]))
    return DeadJobs(records, None if horizon is None else f"{horizon[0]}:{horizon[1]}")


async def count_dead(store: Store, wanted: DeadFilter) -> int:
    """Count the dead letters that a filter lets through, by their groups."""
    return sum(
        group.count
        for groups in await over_shards(store, commands.read_dead_groups)
        for group in groups
        if wanted.queue in (None, group.queue)
        and wanted.type in (None, group.type)
        and wanted.fingerprint in (None, group.fingerprint)
    )


def _merge(pages: list[DeadPage], horizon: Moment | None) -> list[JobRecord]:
    found = [record for page in pages for record in page.jobs if horizon is None or _died(record) >= horizon]
    return sorted(found, key=_died, reverse=True)


def _died(record: JobRecord) -> Moment:
    return record.finished_ms or 0, record.id


def place_of(record: JobRecord) -> str:
    """Return the place right behind a dead letter."""
    return f"{record.finished_ms or 0}:{record.id}"


def _moment_of(place: str) -> Moment:
    ms, _, job_id = place.partition(":")
    return int(ms), job_id
