"""Deleting an ended job with all that is kept of it."""

from __future__ import annotations

import asyncio

from aiohttp import web

from tidings_tasks.store import JobRecord, commands

from ..context import FILES, STORE
from .result import result_file

__all__ = ["delete_job"]


async def delete_job(app: web.Application, record: JobRecord) -> str:
    """Remove record, log, result, and the file that is its result; return ``deleted``, ``gone`` or ``open`` (left alone)."""
    outcome = await app[STORE].run(commands.delete(record.id))
    if outcome == "deleted":
        await _delete_result_file(app, record)
    return outcome


async def _delete_result_file(app: web.Application, record: JobRecord) -> None:
    """Delete the file, unless it was there before the job began: then it is somebody's input, handed through."""
    named = result_file(record)
    if named is None:
        return
    files = app[FILES]
    stored = await asyncio.to_thread(files.find, named.id)
    if (
        stored is not None
        and (stored.owner, stored.org) == (record.spec.owner, record.spec.org)
        and stored.info.created_at.timestamp() * 1000 >= record.created_ms
    ):
        await asyncio.to_thread(files.delete, stored.info.id)
