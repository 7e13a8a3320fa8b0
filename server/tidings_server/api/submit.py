"""Submitting jobs: validated, charged to the caller's rate, stored in one step together with what else arrives."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from tidings.protocol import Job, JobState, SubmitJob, shard_of
from tidings.protocol.errors import (
    IdempotencyConflict,
    IllegalState,
    InvalidInput,
    JobNotFound,
    PayloadTooLarge,
    QueueDraining,
    QueueFull,
    RateLimited,
    UnknownJobType,
    UnsupportedMediaType,
)
from tidings_tasks.store import Outcome, Submission, commands
from tidings_tasks.submission import fingerprint_of

from ..context import INTAKE, LIMITER, REGISTRY, SETTINGS, STORE
from .accepting import KEY, RATE_HEADERS, check_stored, idempotency_key, prepare_job
from .access import find_own_job
from .again import submit_again
from .answers import json_answer
from .body import read_json
from .examples import JOB
from .route import Answer, HeaderField, Route, identity_of

__all__ = ["ROUTES"]

_ACCEPTED_HEADERS: Final = (
    HeaderField("Location", "Where the job is."),
    HeaderField("Idempotent-Replayed", "`true` when the job was there before.", {"const": "true"}),
    HeaderField(
        "Deduplicated", "`true` when an open job holds the `dedup.key`; this is it.", {"const": "true"}
    ),
    *RATE_HEADERS,
)


async def submit(request: web.Request) -> web.StreamResponse:
    """Take a job. Nothing is stored before everything was checked."""
    allowance = request.app[LIMITER].take(identity_of(request).tenant.scope)
    key = idempotency_key(request)
    body, raw = await read_json(request, SubmitJob)
    shard, submission = prepare_job(request, body, key=key, fingerprint=fingerprint_of(raw) if key else "")
    return await _store(request, shard, submission, allowance.headers())


async def retry(request: web.Request) -> web.StreamResponse:
    """Submit an ended job's work again, as a new job of the same owner."""
    allowance = request.app[LIMITER].take(identity_of(request).tenant.scope)
    key = idempotency_key(request)
    former = await find_own_job(request)
    if former.state not in (JobState.FAILED, JobState.CANCELLED):
        raise IllegalState(f"the job is {former.state}; only a failed or cancelled one can be retried")
    app = request.app
    submission = submit_again(
        former, app[REGISTRY], app[SETTINGS].queues, app[STORE].keyspace,
        key=key, fingerprint=f"retry:{former.id}",
    )  # fmt: skip
    return await _store(request, shard_of(former.id), submission, allowance.headers())


async def _store(
    request: web.Request, shard: int, submission: Submission, headers: dict[str, str]
) -> web.Response:
    enqueued = await request.app[INTAKE].submit(shard, submission)
    check_stored(request, submission.queue, enqueued)
    record = await request.app[STORE].run(commands.read_job(enqueued.id))
    if record is None:
        raise JobNotFound
    headers["Location"] = f"/api/jobs/{record.id}"
    if enqueued.outcome is Outcome.REPLAYED:
        headers["Idempotent-Replayed"] = "true"
    if enqueued.outcome is Outcome.DUPLICATE:
        headers["Deduplicated"] = "true"
    return json_answer(record.view(), status=202, headers=headers)


ROUTES = (
    Route(
        method="POST",
        path="/api/jobs",
        name="submitJob",
        handle=submit,
        tag="jobs",
        summary="Submit a job",
        description="The job is stored when the answer arrives; a 4xx answer means that nothing was.",
        headers=(KEY,),
        body=SubmitJob,
        body_example={"type": "demo.steps", "input": {"steps": 5, "delay_ms": 200}},
        answers=(
            Answer(
                status=202,
                description="The job is stored.",
                model=Job,
                headers=_ACCEPTED_HEADERS,
                example=JOB,
            ),
        ),
        errors=(
            InvalidInput,
            UnknownJobType,
            IdempotencyConflict,
            PayloadTooLarge,
            UnsupportedMediaType,
            RateLimited,
            QueueDraining,
            QueueFull,
        ),
    ),
    Route(
        method="POST",
        path="/api/jobs/{id}/retry",
        name="retryJob",
        handle=retry,
        tag="jobs",
        summary="Submit a failed or cancelled job again",
        description="Makes a new job with the same type, input and queue, whose `retry_of` names this one.",
        headers=(KEY,),
        answers=(
            Answer(
                status=202,
                description="The new job is stored.",
                model=Job,
                headers=_ACCEPTED_HEADERS,
                example=JOB,
            ),
        ),
        errors=(JobNotFound, IllegalState, IdempotencyConflict, RateLimited, QueueFull, QueueDraining),
    ),
)
