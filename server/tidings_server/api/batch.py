"""Submitting many jobs in one call: all are stored in one step, or none."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

import orjson
from aiohttp import web

from tidings.protocol.bulk import MAX_BATCH, SubmitBatch, SubmittedBatch
from tidings.protocol.errors import (
    FieldError,
    IdempotencyConflict,
    InvalidInput,
    PayloadTooLarge,
    QueueDraining,
    QueueFull,
    RateLimited,
    StoreUnavailable,
    UnsupportedMediaType,
)
from tidings_tasks.store import Enqueued, Outcome, Submission
from tidings_tasks.store.bulk_commands import read_jobs
from tidings_tasks.submission import fingerprint_of

from ..context import INTAKE, LIMITER, SETTINGS, STORE
from .accepting import KEY, RATE_HEADERS, check_stored, idempotency_key, prepare_job
from .answers import json_answer
from .body import read_json
from .examples import JOB
from .faults import invalid, invalid_fields
from .route import Answer, HeaderField, Route, identity_of

__all__ = ["ROUTES"]

_MAX_ERRORS: Final = 50
# So many are checked in one go; what else the server has to do comes in between.
_CHECKED_AT_ONCE: Final = 50
_READ_AT_ONCE: Final = 100


async def submit_batch(request: web.Request) -> web.StreamResponse:
    """Take jobs, each as ``POST /api/jobs`` would; one that is refused refuses them all."""
    caller, limiter = identity_of(request).tenant.scope, request.app[LIMITER]
    # One is taken before the body is read, so that refused bodies cost too; the others when they are counted.
    allowance = limiter.take(caller)
    key = idempotency_key(request)
    body, raw = await read_json(request, SubmitBatch)
    if len(body.jobs) > allowance.limit:
        raise invalid(
            "jobs", "over_the_rate", f"At most {allowance.limit} jobs: a whole minute's submissions"
        )
    if len(body.jobs) > 1:
        allowance = limiter.take(caller, len(body.jobs) - 1)
    shard, batch = await _prepare(request, body, key, fingerprint_of(raw) if key else "")
    stored = await request.app[INTAKE].submit_batch(shard, batch)
    _check(request, batch, stored)
    views = await _read(request, shard, [entry.id for entry in stored])
    headers = allowance.headers()
    if all(entry.outcome is Outcome.REPLAYED for entry in stored):
        headers["Idempotent-Replayed"] = "true"
    told = {
        "jobs": [views[entry.id] for entry in stored],
        "deduplicated": [at for at, entry in enumerate(stored) if entry.outcome is Outcome.DUPLICATE],
    }
    return json_answer(told, status=202, headers=headers)


async def _read(request: web.Request, shard: int, ids: list[str]) -> dict[str, orjson.Fragment]:
    """Read the jobs and encode their views, so many at a time. Two submissions may have come to the same job."""
    views: dict[str, orjson.Fragment] = {}
    wanted = list(dict.fromkeys(ids))
    for at in range(0, len(wanted), _READ_AT_ONCE):
        records = await request.app[STORE].run(read_jobs(shard, wanted[at : at + _READ_AT_ONCE]))
        for record in records:
            if record is None:
                raise StoreUnavailable("a job of the batch is gone already", retry_after_s=1)
            views[record.id] = orjson.Fragment(orjson.dumps(record.view()))
    return views


async def _prepare(
    request: web.Request, body: SubmitBatch, key: str, fingerprint: str
) -> tuple[int, list[Submission]]:
    batch: list[Submission] = []
    wrong: list[FieldError] = []
    shard = 0
    for at, job in enumerate(body.jobs):
        # The unit separator is in no key of a client's own, so these meet no other.
        own_key = f"{key}\x1f{at}" if key else ""
        try:
            shard, submission = prepare_job(request, job, key=own_key, fingerprint=fingerprint)
        except InvalidInput as error:
            wrong += [
                entry.model_copy(update={"field": f"jobs.{at}.{entry.field}"}) for entry in error.errors
            ]
            if len(wrong) >= _MAX_ERRORS:
                break
        else:
            batch.append(submission)
        if at % _CHECKED_AT_ONCE == _CHECKED_AT_ONCE - 1:
            await asyncio.sleep(0)
    if wrong:
        raise invalid_fields(wrong[:_MAX_ERRORS])
    _check_room(request, batch)
    return shard, batch


def _check_room(request: web.Request, batch: list[Submission]) -> None:
    """Refuse what no waiting makes fit; `queue_full` is worth another try. What a key may drop is not counted."""
    policies = request.app[SETTINGS].queues
    wanted = Counter(each.queue for each in batch if not each.due and not each.dedup_key)
    for queue, count in wanted.items():
        most = policies[queue].max_length if queue in policies else None
        if most is not None and count > most:
            raise invalid("jobs", "over_the_queue", f"At most {most} jobs: the queue {queue} holds no more")


def _check(request: web.Request, batch: list[Submission], stored: list[Enqueued]) -> None:
    """Raise for the first that is not stored; ``refused`` are those that would have been, without it."""
    for submission, entry in zip(batch, stored, strict=True):
        if entry.outcome is not Outcome.REFUSED:
            check_stored(request, submission.queue, entry)


ROUTES = (
    Route(
        method="POST",
        path="/api/jobs/batch",
        name="submitBatch",
        handle=submit_batch,
        tag="jobs",
        summary="Submit many jobs, all or none",
        description=(
            f"1 to {MAX_BATCH:,} jobs, each as for `POST /api/jobs` and charged like one. One that is refused refuses "
            "them all; errors are named like `jobs.17.input.steps`. The `Idempotency-Key` is the whole batch's."
        ),
        headers=(KEY,),
        body=SubmitBatch,
        body_example={
            "jobs": [
                {"type": "demo.steps", "input": {"steps": 5}},
                {"type": "demo.steps", "input": {"steps": 9}, "priority": 1},
            ]
        },
        answers=(
            Answer(
                status=202,
                description="All jobs are stored, in the order in which they were given.",
                model=SubmittedBatch,
                headers=(
                    HeaderField(
                        "Idempotent-Replayed", "`true` when all jobs were there before.", {"const": "true"}
                    ),
                    *RATE_HEADERS,
                ),
                example={"jobs": [JOB], "deduplicated": []},
            ),
        ),
        errors=(
            InvalidInput,
            IdempotencyConflict,
            PayloadTooLarge,
            UnsupportedMediaType,
            RateLimited,
            QueueDraining,
            QueueFull,
        ),
    ),
)
