"""The caller's jobs, newest first: filters, and a cursor that survives new jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import orjson
from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from tidings.protocol import JobPage, JobState, is_job_id, shard_of
from tidings.protocol.errors import InvalidInput
from tidings.protocol.ids import JOB_ID_PATTERN
from tidings_tasks.store import JobRecord, Store, Tenant, commands
from tidings_tasks.store.bulk_commands import read_jobs

from ..context import FORECAST, STORE
from ..eta import Forecast
from .answers import json_answer
from .cursors import make_cursor, read_cursor
from .examples import JOB_PAGE
from .route import Answer, Route, identity_of, query_of

__all__ = ["MAX_PAGE_BYTES", "MAX_READS", "READ_AT_ONCE", "ROUTES"]

READ_AT_ONCE = 50
MAX_READS = 40
# A job may have a megabyte of input; a page of them must not have 200.
MAX_PAGE_BYTES = 4_194_304

Word = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class ListQuery(BaseModel):
    """The query of the list. All filters must hold; of one filter's values any may."""

    model_config = ConfigDict(extra="forbid")

    status: list[JobState] = Field(default_factory=list, description="Only jobs in one of these states.")
    type: list[Word] = Field(default_factory=list, max_length=20, description="Only jobs of these types.")
    queue: list[Word] = Field(default_factory=list, max_length=20, description="Only jobs of these queues.")
    tag: list[Word] = Field(
        default_factory=list, max_length=20, description="Only jobs with one of these tags."
    )
    parent: Annotated[str, StringConstraints(pattern=JOB_ID_PATTERN)] | None = Field(
        default=None, description="Only the steps of this flow, as far as they are jobs already."
    )
    created_after: AwareDatetime | None = Field(
        default=None, description="Only jobs created after this time, such as 2026-11-23T10:00:00Z."
    )
    limit: int = Field(default=50, ge=1, le=200, description="At most so many jobs.")
    cursor: str | None = Field(default=None, max_length=128, description="`next_cursor` of the page before.")

    @property
    def is_filtering(self) -> bool:
        """Whether some jobs may be left out."""
        return bool(self.status or self.type or self.queue or self.tag)

    def admits(self, record: JobRecord) -> bool:
        """Whether the filters let the job through."""
        return (
            (not self.status or record.state in self.status)
            and (not self.type or record.spec.type in self.type)
            and (not self.queue or record.queue in self.queue)
            and (not self.tag or not set(self.tag).isdisjoint(record.spec.tags))
            and not self.ends_before(record)
        )

    def ends_before(self, record: JobRecord) -> bool:
        """Whether the job, and so all that follow it, is too old."""
        return self.created_after is not None and record.created_ms <= self.created_after.timestamp() * 1000


async def list_jobs(request: web.Request) -> web.StreamResponse:
    """Answer a page. It may be shorter than ``limit`` although more follows, where filters let little through."""
    query = query_of(request, ListQuery)
    store, tenant = request.app[STORE], identity_of(request).tenant
    jobs, last_id = await _scan(store, request.app[FORECAST], tenant, query, read_cursor(query.cursor))
    return json_answer({"jobs": jobs, "next_cursor": None if last_id is None else make_cursor(last_id)})


async def _scan(
    store: Store, forecast: Forecast, tenant: Tenant, query: ListQuery, after_id: str
) -> tuple[list[orjson.Fragment], str | None]:
    """Return a page of encoded jobs, and the id that the next one begins behind or None when nothing is left."""
    found: list[orjson.Fragment] = []
    size_bytes = 0
    shard = store.keyspace.shard_of_tenant(tenant)
    steps = None if query.parent is None else await _steps_of(store, tenant, query.parent)
    for _ in range(MAX_READS):
        # One more than is wanted tells whether a next page exists.
        wanted = READ_AT_ONCE if query.is_filtering else min(READ_AT_ONCE, query.limit + 1 - len(found))
        if steps is None:
            batch = await store.run(commands.list_jobs(shard, tenant, after_id=after_id, limit=wanted))
        else:
            batch = await _read_steps(store, shard, [i for i in steps if not after_id or i < after_id])
        if not batch:
            return found, None
        for record, hints in zip(batch, await forecast.hints(*batch), strict=True):
            if query.ends_before(record):
                return found, None
            if query.admits(record):
                text = orjson.dumps(record.view() | hints)
                size_bytes += len(text)
                if len(found) == query.limit or (found and size_bytes > MAX_PAGE_BYTES):
                    return found, after_id
                found.append(orjson.Fragment(text))
            after_id = record.id
    return found, after_id


async def _steps_of(store: Store, tenant: Tenant, flow_id: str) -> list[str]:
    """Return the ids of a flow's steps, newest first; none when the caller has no such flow."""
    if not is_job_id(flow_id) or shard_of(flow_id) != store.keyspace.shard_of_tenant(tenant):
        return []
    flow = await store.run(commands.read_job(flow_id))
    if flow is None or flow.tenant != tenant:
        return []
    return flow.step_ids[::-1]


async def _read_steps(store: Store, shard: int, ids: Sequence[str]) -> list[JobRecord]:
    """Read the first of these that are jobs."""
    for at in range(0, len(ids), READ_AT_ONCE):
        records = await store.run(read_jobs(shard, ids[at : at + READ_AT_ONCE]))
        if found := [record for record in records if record is not None]:
            return found
    return []


ROUTES = (
    Route(
        method="GET",
        path="/api/jobs",
        name="listJobs",
        handle=list_jobs,
        tag="jobs",
        summary="List the caller's jobs",
        description=(
            "Newest first. A filter takes several values, repeated or separated by commas. A page may hold fewer jobs "
            "than `limit`, even none, while `next_cursor` says that there is more."
        ),
        query=ListQuery,
        answers=(Answer(description="A page.", model=JobPage, example=JOB_PAGE),),
        errors=(InvalidInput,),
    ),
)
