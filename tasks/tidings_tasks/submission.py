"""From a job type and a request to what the store keeps: everything is checked before the job exists."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from tidings.protocol import MAX_PRIORITY, new_job_id
from tidings.protocol.bulk import MAX_BATCH
from tidings.protocol.errors import (
    FieldError,
    IdempotencyConflict,
    InvalidInput,
    QueueDraining,
    QueueFull,
    TidingsError,
)

from .job_type import JobType
from .queue.queues import BUILT_IN_POLICIES, QueuePolicy, policy_of
from .registry import REGISTRY, Registry
from .store import Enqueued, Keyspace, Outcome, Spec, Submission, Tenant

__all__ = ["MAX_BATCH", "check_enqueued", "fingerprint_of", "kept_ms_of", "prepare"]

_MAX_DELAY_S = 366 * 86_400
_MAX_KEY_CHARS = 128
# What the scripts keep a job for when nothing else is said, see ``lua/shared.lua``.
_COMPLETED_KEPT_S, _FAILED_KEPT_S = 7 * 86_400, 30 * 86_400


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
    concurrency_key: str = "",
    dedup_key: str = "",
    dedup_ttl_s: float | None = None,
    debounce: bool = False,
    expires_at: datetime | None = None,
    expires_in_s: float | None = None,
    idempotency_key: str = "",
    fingerprint: str = "",
    is_checked: bool = False,
    depth: int = 0,
    registry: Registry = REGISTRY,
    policies: Mapping[str, QueuePolicy] = BUILT_IN_POLICIES,
) -> tuple[int, Submission]:
    """Check a request, give the job its id, and return the shard of its tenant with what ``commands.enqueue`` takes.

    Args:
        input: untrusted; see ``JobType.validate_input``.
        concurrency_key: of the tenant's jobs with it, as many run at once as the type says.
        dedup_key: while an open job of the owner has it (with ``dedup_ttl_s``: for so long), no other one is stored.
        debounce: another one takes the place of a job that is still scheduled; needs a due time.
        expires_at: not begun by then, the job fails; or ``expires_in_s``. Neither: as the type says, which counts from
            the due time.
        fingerprint: tells requests with one idempotency key apart; holds no spaces.
        is_checked: the input is JSON and not checked again.
        depth: how many flows the job is within.
        policies: of the queues; they time and repeat what the type does not.

    Raises:
        InvalidInput: with an entry for each field that is wrong.
    """
    given = {} if input is None else input
    flow = job_type.plan(
        given, tenant, keyspace, queue=queue, priority=priority, depth=depth, registry=registry,
        policies=policies,
    )  # fmt: skip
    data = given if is_checked or flow is not None else job_type.dump_input(given)
    place = job_type.queue if queue is None else queue
    if place not in policies and place not in registry.queues and place != job_type.queue:
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
        input=data if flow is None else flow.input,
        timeout_s=timing.timeout_s if flow is None else flow.timeout_s,
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
    due = _moment("run_at", run_at, "delay_s", delay_s)
    expires = _moment("expires_at", expires_at, "expires_in_s", expires_in_s)
    if not expires and job_type.expires_s is not None:
        expires = _later(due, job_type.expires_s)
    elif expires and due and expires[0] == due[0] == "+" and int(expires) <= int(due):
        raise _invalid("expires_in_s", "before_due", "must be more than delay_s")
    elif run_at is not None and expires_at is not None and expires_at <= run_at:
        raise _invalid("expires_at", "before_due", "must be after run_at")
    _check_dedup(dedup_key, dedup_ttl_s, debounce, due)
    _check_key("concurrency_key", concurrency_key)
    if flow is not None and concurrency_key and (step := flow.find_step_behind(concurrency_key)):
        message = f"step {step} has it too, and would wait for the flow, which waits for it; give one of them another key"
        raise _invalid("concurrency_key", "own_key", message)
    completed_kept_ms, failed_kept_ms = kept_ms_of(policy)
    shard = keyspace.shard_of_tenant(tenant)
    return shard, Submission(
        id=new_job_id(shard),
        spec=spec,
        queue=place,
        priority=policy.priority if priority is None else priority,
        due=due,
        idempotency_key=idempotency_key,
        fingerprint=fingerprint,
        expires=expires,
        concurrency_key=concurrency_key,
        concurrency_limit=job_type.concurrency_limit,
        dedup_key=dedup_key,
        dedup_ttl_ms=0 if dedup_ttl_s is None else max(1, round(dedup_ttl_s * 1000)),
        debounce=debounce,
        dependency=job_type.dependency or "",
        completed_kept_ms=completed_kept_ms,
        failed_kept_ms=failed_kept_ms,
        flow=flow,
    )


def kept_ms_of(policy: QueuePolicy) -> tuple[int | None, int | None]:
    """How long completed jobs, and all others, of a queue are kept, as ``Submission`` takes it: None for the usual time."""
    return (
        _unusual(policy.completed_kept_s, _COMPLETED_KEPT_S),
        _unusual(policy.failed_kept_s, _FAILED_KEPT_S),
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
        QueueDraining: a queue takes no new jobs now.
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
        if entry.outcome is Outcome.DRAINING:
            raise QueueDraining("the queue takes no new jobs now; try again later", retry_after_s=5)
    return [entry.id for entry in reply]


def _moment(at_field: str, at: datetime | None, in_field: str, in_s: float | None) -> str:
    """Return a moment as ``Submission`` takes it, given as a time or as seconds from now; empty for neither."""
    if at is not None and in_s is not None:
        raise _invalid(at_field, "one_time", f"give {at_field} or {in_field}, not both")
    if at is None:
        return "" if in_s is None else _after(in_field, in_s)
    if at.tzinfo is None:
        raise _invalid(at_field, "timezone_aware", "must have a time zone")
    return str(max(0, round(at.timestamp() * 1000)))


def _after(field: str, seconds: float) -> str:
    if not 0 <= seconds <= _MAX_DELAY_S:
        raise _invalid(field, "out_of_range", f"must be from 0 to {_MAX_DELAY_S} seconds")
    return f"+{round(seconds * 1000)}" if seconds else ""


def _later(due: str, seconds: float) -> str:
    """Return the moment so many seconds after a due time."""
    moment = int(due or 0) + round(seconds * 1000)
    return str(moment) if due and due[0] != "+" else f"+{moment}"


def _check_dedup(key: str, ttl_s: float | None, debounce: bool, due: str) -> None:
    _check_key("dedup_key", key)
    if not key and (debounce or ttl_s is not None):
        raise _invalid("dedup_key", "missing", "dedup_ttl_s and debounce need it")
    if ttl_s is not None and not 0 < ttl_s <= _MAX_DELAY_S:
        raise _invalid("dedup_ttl_s", "out_of_range", f"must be above 0 and at most {_MAX_DELAY_S} seconds")
    if debounce and not due:
        raise _invalid("debounce", "no_due_time", "needs delay_s or run_at: the time that a repeat moves")


def _check_key(field: str, key: str) -> None:
    if len(key) > _MAX_KEY_CHARS or not key.isprintable():
        raise _invalid(field, "malformed_key", f"must be at most {_MAX_KEY_CHARS} printable characters")


def _unusual(kept_s: float, usual_s: float) -> int | None:
    return None if kept_s == usual_s else round(kept_s * 1000)


def _invalid(field: str, code: str, message: str) -> InvalidInput:
    return InvalidInput(f"{field}: {message}", errors=[FieldError(field=field, code=code, message=message)])
