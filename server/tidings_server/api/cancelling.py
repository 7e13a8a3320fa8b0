"""Cancelling the caller's open jobs by filter: newest first, so many a call, and a cursor to go on from."""

from __future__ import annotations

import asyncio
from typing import Final

import orjson
from aiohttp import web

from tidings.protocol import JobState
from tidings.protocol.bulk import CancelJobs, CancelledJobs
from tidings.protocol.errors import InvalidInput, PayloadTooLarge, UnsupportedMediaType
from tidings_tasks.store import JobRecord, Store, commands
from tidings_tasks.store.bulk_commands import list_open, read_jobs

from ..context import STORE
from .answers import json_answer
from .body import read_json
from .cursors import make_cursor, read_cursor
from .route import Answer, Route, identity_of

__all__ = ["MAX_LOOKED_AT", "ROUTES"]

MAX_LOOKED_AT = 2_000
_READ_AT_ONCE: Final = 50
_CANCELLED_AT_ONCE: Final = 8


async def cancel_jobs(request: web.Request) -> web.StreamResponse:
    """Cancel what the filter lets through, or only count it. Looks at 2,000 open jobs at most, and at the flows they belong to."""
    body, _ = await read_json(request, CancelJobs)
    caller, store = identity_of(request), request.app[STORE]
    shard = store.keyspace.shard_of_tenant(caller.tenant)
    after_id = read_cursor(body.cursor)
    counted: set[str] = set()
    flows: dict[str, JobRecord] = {}
    outcomes: list[str] = []
    next_cursor: str | None = None
    for _ in range(0, MAX_LOOKED_AT, _READ_AT_ONCE):
        page = await store.run(list_open(shard, caller.tenant, after_id=after_id, limit=_READ_AT_ONCE))
        if not page:
            break
        await _read_flows(store, shard, page, flows)
        chosen = {record.id: record for record in page if _admits(body, record)}
        # A flow is cancelled before its steps are: one that loses a step fails.
        above = {job_id: _flows_above(body, record, flows) for job_id, record in chosen.items()}
        chosen |= {flow.id: flow for found in above.values() for flow in found}
        new = [record for job_id, record in chosen.items() if job_id not in counted]
        counted |= chosen.keys()
        if not body.dry_run:
            alone = [record for record in new if not _flows_above(body, record, flows)]
            outcomes += await _cancel(store, alone, orjson.dumps(caller.subject), orjson.dumps(body.reason))
            outcomes += [_end_with_its_flow(record) for record in new if _flows_above(body, record, flows)]
        after_id = page[-1].id
    else:
        next_cursor = make_cursor(after_id)
    return json_answer(
        {
            "matched": len(counted),
            "cancelled": outcomes.count("cancelled"),
            "cancelling": outcomes.count("cancelling"),
            "next_cursor": next_cursor,
        }
    )


async def _cancel(store: Store, records: list[JobRecord], by: bytes, reason: bytes) -> list[str]:
    """Cancel these and return what became of each; one that has ended meanwhile is ``terminal`` or ``gone``."""
    outcomes: list[str] = []
    for at in range(0, len(records), _CANCELLED_AT_ONCE):
        some = records[at : at + _CANCELLED_AT_ONCE]
        replies = await asyncio.gather(
            *(store.run(commands.cancel(record.id, by=by, reason=reason)) for record in some)
        )
        outcomes += [outcome for outcome, _, _ in replies]
    return outcomes


async def _read_flows(
    store: Store, shard: int, records: list[JobRecord], flows: dict[str, JobRecord]
) -> None:
    """Read the flows that these are steps of, and the flows that those are within."""
    wanted = {record.parent for record in records if record.parent} - flows.keys()
    while wanted:
        found = [record for record in await store.run(read_jobs(shard, sorted(wanted))) if record is not None]
        flows |= {record.id: record for record in found}
        wanted = {record.parent for record in found if record.parent} - flows.keys()


def _flows_above(body: CancelJobs, record: JobRecord, flows: dict[str, JobRecord]) -> list[JobRecord]:
    """Return the flows that the job is a step of and that are to be cancelled too."""
    above: list[JobRecord] = []
    while (flow := flows.get(record.parent or "")) is not None:
        if _admits(body, flow):
            above.append(flow)
        record = flow
    return above


def _end_with_its_flow(record: JobRecord) -> str:
    return "cancelling" if record.state is JobState.RUNNING else "cancelled"


def _admits(body: CancelJobs, record: JobRecord) -> bool:
    return (
        not record.state.is_terminal
        and (not body.status or record.state in body.status)
        and (not body.type or record.spec.type in body.type)
        and (not body.queue or record.queue in body.queue)
        and (not body.tag or not set(body.tag).isdisjoint(record.spec.tags))
        and (body.created_after is None or record.created_ms > body.created_after.timestamp() * 1000)
        and (body.created_before is None or record.created_ms < body.created_before.timestamp() * 1000)
    )


ROUTES = (
    Route(
        method="POST",
        path="/api/jobs/cancel",
        name="cancelJobs",
        handle=cancel_jobs,
        tag="jobs",
        summary="Cancel the caller's open jobs by filter",
        description=(
            "Waiting jobs are cancelled at once, running ones are asked to stop. Without a filter, `all: true` says that "
            f"every one is meant. A call looks at {MAX_LOOKED_AT:,} open jobs at most, newest first; `next_cursor` says that "
            "there are more: send it with the same body."
        ),
        body=CancelJobs,
        body_example={"status": ["queued", "scheduled"], "tag": ["nightly"], "dry_run": True},
        answers=(
            Answer(
                description="What was done, or with `dry_run` what would be.",
                model=CancelledJobs,
                example={"matched": 3, "cancelled": 2, "cancelling": 1, "next_cursor": None},
            ),
        ),
        errors=(InvalidInput, PayloadTooLarge, UnsupportedMediaType),
    ),
)
