"""Dramatiq's messages and our jobs: a message becomes a submission, and a claim a message again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from dramatiq import Actor, Message
from dramatiq.broker import MessageProxy

from tidings.protocol import MAX_PRIORITY, new_job_id
from tidings.protocol.errors import FieldError, InvalidInput
from tidings.protocol.ids import time_ms_of

from ..attempt import Attempt
from ..job_type import JobType
from ..registry import Registry
from ..store import Claim, Keyspace, Spec, Submission, Tenant
from ..submission import kept_ms_of, prepare
from .actor_options import ActorDefaults, read_policy
from .policy import Verdict
from .queues import QueuePolicy, policy_of
from .time_limits import RUNNING, TimeLimits

__all__ = ["AttemptMessage", "message_of", "submission_of"]

_NOT_KEPT = frozenset({"owner", "org", "eta", "delay"})


class AttemptMessage(MessageProxy):
    """A message under an attempt. ``verdict`` is how the attempt is to end, once that is known."""

    def __init__(self, message: Message[Any], attempt: Attempt) -> None:
        super().__init__(message)
        self.attempt = attempt
        self.verdict: Verdict | None = None
        self.time_limits: TimeLimits | None = None
        """What keeps its time under the stock worker; ours keeps it in another way."""

    def end_time(self) -> None:
        """Its actor does not run any more."""
        if self.time_limits is not None:
            self.time_limits.end(self.attempt)
            RUNNING.set(None)


def submission_of(
    message: Message[Any],
    keyspace: Keyspace,
    *,
    actor: Actor[..., Any] | None,
    job_type: JobType[Any, Any] | None,
    defaults: ActorDefaults,
    inherited: Tenant | None,
    delay_ms: int | None,
    registry: Registry,
    policies: Mapping[str, QueuePolicy],
) -> tuple[int, Submission]:
    """Return the shard and the submission of a message.

    Args:
        inherited: whose it is when its options don't say: that of the job it follows, else the system's.
        policies: of the queues. Of a plain actor's jobs they say the priority and the retention: its time limit and
            retries are Dramatiq's own.

    Raises:
        InvalidInput: arguments or options are no JSON, or the job type does not take them.
    """
    options = message.options
    tenant = (
        Tenant(options["owner"], options.get("org")) if "owner" in options else inherited or Tenant("system")
    )
    due = _due(options, delay_ms)
    if job_type is not None:
        data = message.kwargs or (message.args[0] if message.args else {})
        shard, made = prepare(
            job_type, tenant, keyspace, input=data, queue=message.queue_name, registry=registry,
            policies=policies,
        )  # fmt: skip
        return shard, replace(made, due=due)
    policy = read_policy(options, actor.options if actor is not None else {}, defaults)
    kept = {name: value for name, value in options.items() if name not in _NOT_KEPT}
    spec = Spec(
        type=message.actor_name,
        owner=tenant.owner,
        org=tenant.org,
        input=_plain({"args": message.args, "kwargs": message.kwargs, "options": kept}),
        timeout_s=policy.timeout_s,
        max_attempts=policy.max_attempts,
        backoff_s=policy.backoff_s,
        is_plain_actor=True,
    )
    # Dramatiq's priority is relative, lower first; it shifts that of the queue.
    shift = actor.priority if actor is not None else 0
    place = policy_of(policies, message.queue_name)
    priority = min(MAX_PRIORITY, max(1, place.priority + shift))
    shard = keyspace.shard_of_tenant(tenant)
    completed_kept_ms, failed_kept_ms = kept_ms_of(place)
    return shard, Submission(
        id=new_job_id(shard),
        spec=spec,
        queue=message.queue_name,
        priority=priority,
        due=due,
        completed_kept_ms=completed_kept_ms,
        failed_kept_ms=failed_kept_ms,
    )


def message_of(claim: Claim | Attempt, job_id: str) -> Message[Any]:
    """Make the message that a claimed job was, or would be for a job type. Its timestamp is that of the id."""
    spec = claim.spec
    if spec.is_plain_actor:
        args, kwargs, options = spec.input["args"], spec.input["kwargs"], spec.input["options"]
    else:
        args, kwargs, options = [spec.input], {}, {}
    return Message(
        queue_name=claim.queue,
        actor_name=spec.type,
        args=tuple(args),
        kwargs=dict(kwargs),
        options=dict(options),
        message_id=job_id,
        message_timestamp=time_ms_of(job_id),
    )


def _due(options: dict[str, Any], delay_ms: int | None) -> str:
    if delay_ms is not None:
        return f"+{max(0, int(delay_ms))}"
    eta = options.get("eta")
    return str(max(0, int(eta))) if isinstance(eta, int | float) else ""


def _plain(value: Any) -> Any:
    try:
        # What Dramatiq's own encoder takes, such as tuples and numbers as keys, comes out as it would there.
        return orjson.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        text = f"arguments and options of a message must be JSON: {error}"
        raise InvalidInput(text, errors=[FieldError(field="input", code="not_json", message=text)]) from error
