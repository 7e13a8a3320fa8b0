"""Dead letters back into their queues: a new job each, made once however often it is asked for."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from tidings.protocol import shard_of
from tidings_tasks.store import Enqueued, JobRecord, Outcome, commands

from ...context import INTAKE, REGISTRY, SETTINGS, STORE
from ..again import submit_again

__all__ = ["STORED", "retry_dead"]

STORED: Final = (Outcome.CREATED, Outcome.REPLAYED)


async def retry_dead(request: web.Request, records: Sequence[JobRecord]) -> list[Enqueued]:
    """Submit these again and take those that were stored out of the dead letters. Returns what became of each.

    The order matters: after a fault in between, the dead letter is still there, and asking again finds the job made.
    """
    app = request.app
    # The unit separator is in no key of a client's own, so this meets no other.
    jobs = [
        submit_again(
            record,
            app[REGISTRY],
            app[SETTINGS].queues,
            app[STORE].keyspace,
            key=f"\x1fdead\x1f{record.id}",
            fingerprint=f"retry:{record.id}",
        )
        for record in records
    ]
    made = await asyncio.gather(*(app[INTAKE].submit(shard_of(job.id), job) for job in jobs))
    released: dict[int, list[str]] = defaultdict(list)
    for record, entry in zip(records, made, strict=True):
        if entry.outcome in STORED:
            released[shard_of(record.id)].append(record.id)
    for shard, ids in released.items():
        await app[STORE].run(commands.release_dead(shard, ids))
    return made
