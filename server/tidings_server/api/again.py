"""A former job's work as a new submission: the same owner, type, input and place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tidings.protocol import new_job_id, shard_of
from tidings_tasks.queue.queues import QueuePolicy, policy_of
from tidings_tasks.registry import Registry
from tidings_tasks.store import JobRecord, Keyspace, Submission
from tidings_tasks.submission import kept_ms_of

__all__ = ["submit_again"]


def submit_again(
    former: JobRecord,
    registry: Registry,
    policies: Mapping[str, QueuePolicy],
    keyspace: Keyspace,
    *,
    key: str,
    fingerprint: str,
) -> Submission:
    """Return the submission, whose ``retry_of`` names the former job. What waits no more has no due time and no expiry.

    Raises:
        InvalidInput: a flow has a step that its type does not take any more.
    """
    job_type = registry.get(former.spec.type) if former.spec.type in registry else None
    flow = None
    if job_type is not None and job_type.runs_in_store:
        flow = job_type.plan(former.spec.input, former.tenant, keyspace, registry=registry, policies=policies)
    completed_kept_ms, failed_kept_ms = kept_ms_of(policy_of(policies, former.queue))
    return Submission(
        id=new_job_id(shard_of(former.id)),
        spec=replace(former.spec, retry_of=former.id, step=None),
        queue=former.queue,
        priority=former.priority,
        idempotency_key=key,
        fingerprint=fingerprint if key else "",
        concurrency_key=former.concurrency_key or "",
        concurrency_limit=1 if job_type is None else job_type.concurrency_limit,
        dependency="" if job_type is None else job_type.dependency or "",
        completed_kept_ms=completed_kept_ms,
        failed_kept_ms=failed_kept_ms,
        flow=flow,
    )
