"""One job: read it whole, cancel it, delete it."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from tidings.protocol import Job
from tidings.protocol.errors import IllegalState, InvalidInput, JobNotFound, PayloadTooLarge
from tidings_tasks.store import JobRecord, commands

from ..context import FILES, STORE
from .access import find_job, find_own_job
from .answers import json_answer
from .body import read_optional_json
from .examples import JOB
from .result import result_file
from .route import Answer, Route, identity_of

__all__ = ["ROUTES"]


class CancelJob(BaseModel):
    """The optional body of a cancellation."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(
        default=None,
        max_length=500,
        description="Told by the `cancelled` event of a job that was still waiting.",
    )


async def read(request: web.Request) -> web.StreamResponse:
    """Answer the whole job."""
    return json_answer((await find_job(request)).view())


async def cancel(request: web.Request) -> web.StreamResponse:
    """Cancel a waiting job at once; ask the worker of a running one to stop."""
    body = await read_optional_json(request, CancelJob)
    job_id = (await find_own_job(request)).id
    by, reason = orjson.dumps(identity_of(request).subject), orjson.dumps(body.reason)
    outcome, state, _ = await request.app[STORE].run(commands.cancel(job_id, by=by, reason=reason))
    if outcome == "terminal":
        raise IllegalState(f"the job has ended as {state}; there is nothing to cancel")
    record = await request.app[STORE].run(commands.read_job(job_id))
    if record is None:
        raise JobNotFound
    return json_answer(record.view(), status=202)


async def delete(request: web.Request) -> web.StreamResponse:
    """Remove an ended job: record, log, result, and the file that is its result."""
    record = await find_own_job(request)
    outcome = await request.app[STORE].run(commands.delete(record.id))
    if outcome == "gone":
        raise JobNotFound
    if outcome == "open":
        raise IllegalState("the job has not ended; cancel it first")
    await _delete_result_file(request, record)
    return web.Response(status=204)


async def _delete_result_file(request: web.Request, record: JobRecord) -> None:
    """Delete the file, unless it was there before the job began: then it is somebody's input, handed through."""
    named = result_file(record)
    if named is None:
        return
    files = request.app[FILES]
    stored = await asyncio.to_thread(files.find, named.id)
    if (
        stored is not None
        and (stored.owner, stored.org) == (record.spec.owner, record.spec.org)
        and stored.info.created_at.timestamp() * 1000 >= record.created_ms
    ):
        await asyncio.to_thread(files.delete, stored.info.id)


ROUTES = (
    Route(
        method="GET",
        path="/api/jobs/{id}",
        name="readJob",
        handle=read,
        tag="jobs",
        summary="Read a job",
        answers=(Answer(description="The whole job.", model=Job, example=JOB),),
        errors=(JobNotFound,),
    ),
    Route(
        method="POST",
        path="/api/jobs/{id}/cancel",
        name="cancelJob",
        handle=cancel,
        tag="jobs",
        summary="Cancel a job",
        description="A waiting job is cancelled at once. A running one gets `cancelling`, and ends when it notices.",
        body=CancelJob,
        body_required=False,
        body_example={"reason": "no longer needed"},
        answers=(Answer(status=202, description="The job as it stands now.", model=Job, example=JOB),),
        errors=(JobNotFound, IllegalState, InvalidInput, PayloadTooLarge),
    ),
    Route(
        method="DELETE",
        path="/api/jobs/{id}",
        name="deleteJob",
        handle=delete,
        tag="jobs",
        summary="Delete an ended job",
        description="Its record, log, result and result file are removed.",
        answers=(Answer(status=204, description="It is gone."),),
        errors=(JobNotFound, IllegalState),
    ),
)
