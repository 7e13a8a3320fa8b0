"""Submitting jobs: validated, charged to the caller's rate, stored in one step together with what else arrives."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from tidings.protocol import Job, JobState, SubmitJob, new_job_id, shard_of
from tidings.protocol.errors import (
    FieldError,
    IdempotencyConflict,
    IllegalState,
    InvalidInput,
    JobNotFound,
    PayloadTooLarge,
    QueueFull,
    RateLimited,
    UnknownJobType,
    UnsupportedMediaType,
)
from tidings_tasks.registry import JobType, Registry
from tidings_tasks.store import Outcome, Submission, commands
from tidings_tasks.submission import fingerprint_of, prepare

from ..context import INTAKE, LIMITER, METRICS, REGISTRY, STORE
from .access import find_own_job
from .answers import json_answer
from .body import read_json
from .examples import JOB
from .faults import invalid
from .route import Answer, HeaderField, Route, identity_of

__all__ = ["ROUTES"]

_MAX_KEY_CHARS = 255
_QUEUE_FULL_RETRY_S = 10.0
_MAX_DELAY = timedelta(days=366)

_KEY = HeaderField(
    "Idempotency-Key",
    "Repeating a request with the same key within 24 hours gives the same job. 1–255 printable ASCII characters.",
    {"type": "string", "minLength": 1, "maxLength": _MAX_KEY_CHARS, "pattern": r"^[\x20-\x7e]+$"},
)
_ACCEPTED_HEADERS: Final = (
    HeaderField("Location", "Where the job is."),
    HeaderField("Idempotent-Replayed", "`true` when the job was there before.", {"const": "true"}),
    HeaderField("RateLimit-Limit", "Submissions a minute.", {"type": "integer"}),
    HeaderField("RateLimit-Remaining", "Submissions that are left now.", {"type": "integer"}),
    HeaderField("RateLimit-Reset", "Seconds until all are there again.", {"type": "integer"}),
)


async def submit(request: web.Request) -> web.StreamResponse:
    """Take a job. Nothing is stored before everything was checked."""
    caller = identity_of(request)
    allowance = request.app[LIMITER].take(caller.tenant.scope)
    key = _idempotency_key(request)
    body, raw = await read_json(request, SubmitJob)
    registry = request.app[REGISTRY]
    job_type = _find_type(registry, body.type)
    if body.run_at is not None and body.run_at > datetime.now(UTC) + _MAX_DELAY:
        raise invalid("run_at", "too_late", f"Give a time within the next {_MAX_DELAY.days} days")
    shard, submission = prepare(
        job_type,
        caller.tenant,
        request.app[STORE].keyspace,
        input=body.input,
        queue=body.queue,
        priority=body.priority,
        run_at=body.run_at,
        delay_s=body.delay_s,
        tags=tuple(body.tags),
        metadata=body.metadata or None,
        idempotency_key=key,
        fingerprint=fingerprint_of(raw) if key else "",
        registry=registry,
    )
    return await _store(request, shard, submission, allowance.headers())


async def retry(request: web.Request) -> web.StreamResponse:
    """Submit an ended job's work again, as a new job of the same owner."""
    allowance = request.app[LIMITER].take(identity_of(request).tenant.scope)
    key = _idempotency_key(request)
    former = await find_own_job(request)
    if former.state not in (JobState.FAILED, JobState.CANCELLED):
        raise IllegalState(f"the job is {former.state}; only a failed or cancelled one can be retried")
    shard = shard_of(former.id)
    submission = Submission(
        id=new_job_id(shard),
        spec=replace(former.spec, retry_of=former.id),
        queue=former.queue,
        priority=former.priority,
        idempotency_key=key,
        fingerprint=f"retry:{former.id}" if key else "",
    )
    return await _store(request, shard, submission, allowance.headers())


async def _store(
    request: web.Request, shard: int, submission: Submission, headers: dict[str, str]
) -> web.Response:
    enqueued = await request.app[INTAKE].submit(shard, submission)
    request.app[METRICS].submissions.labels(enqueued.outcome.value).inc()
    if enqueued.outcome is Outcome.CONFLICT:
        raise IdempotencyConflict("this Idempotency-Key was used with another request; choose a new key")
    if enqueued.outcome is Outcome.FULL:
        raise QueueFull(f"the queue {submission.queue} is full", retry_after_s=_QUEUE_FULL_RETRY_S)
    record = await request.app[STORE].run(commands.read_job(enqueued.id))
    if record is None:
        raise JobNotFound
    headers["Location"] = f"/api/jobs/{record.id}"
    if enqueued.outcome is Outcome.REPLAYED:
        headers["Idempotent-Replayed"] = "true"
    return json_answer(record.view(), status=202, headers=headers)


def _idempotency_key(request: web.Request) -> str:
    given = request.headers.getall("Idempotency-Key", [])
    if not given:
        return ""
    key = given[0]
    if len(given) > 1 or not 1 <= len(key) <= _MAX_KEY_CHARS or not key.isascii() or not key.isprintable():
        raise invalid(
            "Idempotency-Key",
            "malformed_key",
            f"Send one key of 1 to {_MAX_KEY_CHARS} printable ASCII characters",
        )
    return key


def _find_type(registry: Registry, name: str) -> JobType[Any, Any]:
    try:
        return registry.get(name)
    except UnknownJobType as error:
        message = f"{error.detail}; GET /api/job-types lists them"
        entry = FieldError(field="type", code="unknown_job_type", message=message)
        raise UnknownJobType(error.detail, errors=[entry]) from error


ROUTES = (
    Route(
        method="POST",
        path="/api/jobs",
        name="submitJob",
        handle=submit,
        tag="jobs",
        summary="Submit a job",
        description="The job is stored when the answer arrives; a 4xx answer means that nothing was.",
        headers=(_KEY,),
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
        headers=(_KEY,),
        answers=(
            Answer(
                status=202,
                description="The new job is stored.",
                model=Job,
                headers=_ACCEPTED_HEADERS,
                example=JOB,
            ),
        ),
        errors=(JobNotFound, IllegalState, IdempotencyConflict, RateLimited, QueueFull),
    ),
)
