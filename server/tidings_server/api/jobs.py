"""One job: read it whole, cancel it, delete it."""

from __future__ import annotations

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from tidings.protocol import ChangeJob, Job
from tidings.protocol.errors import (
    IllegalState,
    InvalidInput,
    JobNotFound,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from tidings_tasks.store import commands

from ..context import FORECAST, STORE
from .accepting import due_time_ms
from .access import find_job, find_own_job
from .answers import json_answer
from .body import read_json, read_optional_json
from .deleting import delete_job
from .examples import JOB
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
    record = await find_job(request)
    [hints] = await request.app[FORECAST].hints(record)
    return json_answer(record.view() | hints)


async def change(request: web.Request) -> web.StreamResponse:
    """Change when a waiting job runs."""
    job_id = (await find_own_job(request)).id
    body, _ = await read_json(request, ChangeJob)
    due_ms = due_time_ms(body.run_at, body.delay_s)
    outcome, state, _ = await request.app[STORE].run(
        commands.change(job_id, priority=body.priority, due_ms=due_ms)
    )
    if outcome == "illegal":
        raise IllegalState(f"the job is {state}; only one that waits to begin can be changed")
    record = await request.app[STORE].run(commands.read_job(job_id))
    if outcome == "gone" or record is None:
        raise JobNotFound
    return json_answer(record.view())


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
    outcome = await delete_job(request.app, record)
    if outcome == "gone":
        raise JobNotFound
    if outcome == "open":
        raise IllegalState("the job has not ended; cancel it first")
    return web.Response(status=204)


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
        method="PATCH",
        path="/api/jobs/{id}",
        name="changeJob",
        handle=change,
        tag="jobs",
        summary="Change a waiting job",
        description="Its priority, its due time, or both. A job that runs or has ended answers 409 `illegal_state`.",
        body=ChangeJob,
        body_example={"priority": 1, "delay_s": 0},
        answers=(Answer(description="The job as it stands now.", model=Job, example=JOB),),
        errors=(JobNotFound, IllegalState, InvalidInput, PayloadTooLarge, UnsupportedMediaType),
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
