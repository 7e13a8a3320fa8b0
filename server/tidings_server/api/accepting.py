"""What taking one job and taking many have in common: the key, the type, and what the store's refusals mean."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from tidings.protocol import SubmitJob
from tidings.protocol.errors import FieldError, IdempotencyConflict, QueueDraining, QueueFull, UnknownJobType
from tidings_tasks.registry import JobType, Registry
from tidings_tasks.store import Enqueued, Outcome, Submission
from tidings_tasks.submission import prepare

from ..context import METRICS, REGISTRY, SETTINGS, STORE
from .faults import invalid
from .route import HeaderField, identity_of

__all__ = ["KEY", "RATE_HEADERS", "check_stored", "due_time_ms", "idempotency_key", "prepare_job"]

_MAX_KEY_CHARS = 255
_QUEUE_FULL_RETRY_S = 10.0
_DRAINING_RETRY_S = 30.0
_MAX_DELAY = timedelta(days=366)

KEY: Final = HeaderField(
    "Idempotency-Key",
    "Repeating a request with the same key within 24 hours gives the same job. 1–255 printable ASCII characters.",
    {"type": "string", "minLength": 1, "maxLength": _MAX_KEY_CHARS, "pattern": r"^[\x20-\x7e]+$"},
)
RATE_HEADERS: Final = (
    HeaderField("RateLimit-Limit", "Submissions a minute.", {"type": "integer"}),
    HeaderField("RateLimit-Remaining", "Submissions that are left now.", {"type": "integer"}),
    HeaderField("RateLimit-Reset", "Seconds until all are there again.", {"type": "integer"}),
)


def idempotency_key(request: web.Request) -> str:
    """Return the request's key, or nothing.

    Raises:
        InvalidInput: several, or one of another form.
    """
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


def prepare_job(
    request: web.Request, body: SubmitJob, *, key: str, fingerprint: str
) -> tuple[int, Submission]:
    """Check a job that the caller submits; return the shard and what the store takes.

    Raises:
        InvalidInput: with an entry for each field that is wrong.
        UnknownJobType: no such type is registered.
    """
    registry = request.app[REGISTRY]
    job_type = _find_type(registry, body.type)
    _check_soon("run_at", body.run_at)
    _check_soon("expires_at", body.expires_at)
    dedup = body.dedup
    return prepare(
        job_type,
        identity_of(request).tenant,
        request.app[STORE].keyspace,
        input=body.input,
        queue=body.queue,
        priority=body.priority,
        run_at=body.run_at,
        delay_s=body.delay_s,
        tags=tuple(body.tags),
        metadata=body.metadata or None,
        concurrency_key=body.concurrency_key or "",
        expires_at=body.expires_at,
        expires_in_s=body.expires_in_s,
        dedup_key="" if dedup is None else dedup.key,
        dedup_ttl_s=None if dedup is None else dedup.ttl_s,
        debounce=dedup is not None and dedup.mode == "debounce",
        idempotency_key=key,
        fingerprint=fingerprint,
        registry=registry,
        policies=request.app[SETTINGS].queues,
    )


def due_time_ms(run_at: datetime | None, delay_s: float | None) -> int | None:
    """Return a due time in ms since the Unix epoch, 0 for at once whatever the store's clock says; None for none.

    Raises:
        InvalidInput: it is more than a year away.
    """
    _check_soon("run_at", run_at)
    if run_at is not None:
        return max(0, round(run_at.timestamp() * 1000))
    return None if delay_s is None else round((time.time() + delay_s) * 1000) if delay_s else 0


def _check_soon(field: str, at: datetime | None) -> None:
    if at is not None and at > datetime.now(UTC) + _MAX_DELAY:
        raise invalid(field, "too_late", f"Give a time within the next {_MAX_DELAY.days} days")


def check_stored(request: web.Request, queue: str, enqueued: Enqueued) -> None:
    """Count what became of a submission to a queue.

    Raises:
        IdempotencyConflict: its key was used with another request.
        QueueFull: the queue has no room.
        QueueDraining: the queue takes no new jobs.
    """
    request.app[METRICS].submissions.labels(enqueued.outcome.value).inc()
    if enqueued.outcome is Outcome.CONFLICT:
        raise IdempotencyConflict("this Idempotency-Key was used with another request; choose a new key")
    if enqueued.outcome is Outcome.FULL:
        raise QueueFull(f"the queue {queue} is full", retry_after_s=_QUEUE_FULL_RETRY_S)
    if enqueued.outcome is Outcome.DRAINING:
        raise QueueDraining(f"the queue {queue} takes no new jobs now", retry_after_s=_DRAINING_RETRY_S)


def _find_type(registry: Registry, name: str) -> JobType[Any, Any]:
    try:
        return registry.get(name)
    except UnknownJobType as error:
        message = f"{error.detail}; GET /api/job-types lists them"
        entry = FieldError(field="type", code="unknown_job_type", message=message)
        raise UnknownJobType(error.detail, errors=[entry]) from error
