"""From a job type and a request to what the store keeps: everything is checked before the job exists."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from tidings.protocol import MAX_PRIORITY, new_job_id
from tidings.protocol.errors import FieldError, IdempotencyConflict, InvalidInput, QueueFull, TidingsError

from .job_type import JobType
from .queue.queues import BUILT_IN_POLICIES, QueuePolicy, policy_of
from .registry import REGISTRY, Registry
from .store import Enqueued, Keyspace, Outcome, Spec, Submission, Tenant

__all__ = ["MAX_BATCH", "check_enqueued", "fingerprint_of", "prepare"]

MAX_BATCH = 1_000
"""How many jobs one call may submit (contract §4)."""

_MAX_DELAY_S = 366 * 86_400


def prepare(
    job_type: JobType[Any, Any],
    tenant: Tenant,
    keyspace: Keyspace,
    *,
    input: Any,
    queue: str | None = None,
    priority: int | None = None,
    run_at: datetime | None = None,
    delay_s: float | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    retry_of: str | None = None,
    idempotency_key: str = "",
    fingerprint: str = "",
    registry: Registry = REGISTRY,
    policies: Mapping[str, QueuePolicy] = BUILT_IN_POLICIES,
) -> tuple[int, Submission]:
    """Check a request, give the job its id, and return the shard of its tenant with what ``commands.enqueue`` takes.

    Args:
        input: untrusted; see ``JobType.validate_input``.
        fingerprint: tells requests with one idempotency key apart; holds no spaces.
        policies: of the queues; they time and repeat what the type does not.

    Raises:
        InvalidInput: with an entry for each field that is wrong.
    """
    data = job_type.dump_input({} if input is None else input)
    place = job_type.queue if queue is None else queue
    if place not in policies and place not in registry.queues:
        known = {*policies, *registry.queues}
        near = difflib.get_close_matches(place, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
        raise _invalid("queue", "unknown_queue", f"there is no queue {place[:128]!r}{hint}")
    if priority is not None and not 1 <= priority <= MAX_PRIORITY:
        raise _invalid("priority", "out_of_range", f"must be from 1 (first) to {MAX_PRIORITY}")
    policy = policy_of(policies, place)
    timing = job_type.timing(policy)
    spec = Spec(
        type=job_type.name,
        owner=tenant.owner,
        org=tenant.org,
        input=data,
        timeout_s=timing.timeout_s,
        max_attempts=timing.max_attempts,
        backoff_s=timing.backoff_s,
        tags=tuple(tags),
        metadata=dict(metadata) if metadata else None,
        retry_of=retry_of,
    )
    try:
        spec.to_json()
    except TypeError as error:
        raise _invalid("input", "not_json", f"input and metadata must be JSON: {error}") from error
    shard = keyspace.shard_of_tenant(tenant)
    return shard, Submission(
        id=new_job_id(shard),
        spec=spec,
        queue=place,
        priority=policy.priority if priority is None else priority,
        due=_due(run_at, delay_s),
        idempotency_key=idempotency_key,
        fingerprint=fingerprint,
    )


def fingerprint_of(*content: Any) -> str:
    """Make a fingerprint of JSON-ready content, for ``prepare``."""
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def check_enqueued(reply: Sequence[Enqueued]) -> list[str]:
    """Return the ids of jobs that are now stored, or were before under the same idempotency key.

    Raises:
        IdempotencyConflict: a key was used with another content.
        QueueFull: a queue has no room.
    """
    error: TidingsError
    for entry in reply:
        if entry.outcome is Outcome.CONFLICT:
            error = IdempotencyConflict(
                f"the idempotency key belongs to job {entry.id}, which was made by another request"
            )
            raise error
        if entry.outcome is Outcome.FULL:
            raise QueueFull("the queue is full; try again later", retry_after_s=5)
    return [entry.id for entry in reply]


def _due(run_at: datetime | None, delay_s: float | None) -> str:
    if run_at is not None and delay_s is not None:
        raise _invalid("run_at", "one_due_time", "give run_at or delay_s, not both")
    if run_at is not None:
        if run_at.tzinfo is None:
            raise _invalid("run_at", "timezone_aware", "must have a time zone")
        return str(max(0, round(run_at.timestamp() * 1000)))
    if delay_s is None:
        return ""
    if not 0 <= delay_s <= _MAX_DELAY_S:
        raise _invalid("delay_s", "out_of_range", f"must be from 0 to {_MAX_DELAY_S} seconds")
    return f"+{round(delay_s * 1000)}" if delay_s else ""


def _invalid(field: str, code: str, message: str) -> InvalidInput:
    return InvalidInput(f"{field}: {message}", errors=[FieldError(field=field, code=code, message=message)])
