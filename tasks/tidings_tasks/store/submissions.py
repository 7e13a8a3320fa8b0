"""Jobs on their way into the store: what a submission says, and what becomes of it. Pure; does no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from .command import Command
from .flow_plan import FlowPlan
from .record import Spec

__all__ = ["MAX_QUEUE_LENGTH", "Enqueued", "Outcome", "Submission", "enqueue", "submission_args"]

IDEMPOTENCY_KEPT_MS = 86_400_000
MAX_QUEUE_LENGTH = 5_000_000


class Outcome(StrEnum):
    """What became of a submission."""

    CREATED = "created"
    REPLAYED = "replayed"
    CONFLICT = "conflict"
    DUPLICATE = "duplicate"
    FULL = "full"
    DRAINING = "draining"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to be stored. The id was made beforehand, so that a repeat of the call is recognised.

    ``due`` and ``expires`` (it is not begun after that) are store ms, or ``"+ms"`` counted from the store's now.
    ``fingerprint`` tells requests with the same idempotency key apart; it holds no spaces.

    Of the jobs of a tenant with one ``concurrency_key``, at most ``concurrency_limit`` run at once. While an open job of
    the owner holds ``dedup_key``, another one is not stored; with ``dedup_ttl_ms`` the key is held for so long instead. With
    ``debounce`` another one takes the place of a job that is still scheduled: its spec and its due time. ``dependency`` names
    a circuit breaker. ``completed_kept_ms`` and ``failed_kept_ms`` are given where they are not the usual 7 and 30 days.
    """

    id: str
    spec: Spec
    queue: str
    priority: int
    due: str = ""
    idempotency_key: str = ""
    fingerprint: str = ""
    expires: str = ""
    concurrency_key: str = ""
    concurrency_limit: int = 1
    dedup_key: str = ""
    dedup_ttl_ms: int = 0
    debounce: bool = False
    dependency: str = ""
    completed_kept_ms: int | None = None
    failed_kept_ms: int | None = None
    flow: FlowPlan | None = None
    """The steps of a job of type ``flow``."""

    def options_json(self) -> bytes:
        """Encode what few jobs have, for ``storing.lua``; empty for all others."""
        options = self.options()
        return orjson.dumps(options) if options else b""

    def options(self) -> dict[str, Any]:
        """Return what few jobs have."""
        options: dict[str, Any] = {}
        if self.expires:
            options["x"] = self.expires
        if self.concurrency_key:
            options |= {"ck": self.concurrency_key, "cl": self.concurrency_limit}
        if self.dedup_key:
            options["dk"] = self.dedup_key
            if self.dedup_ttl_ms:
                options["dt"] = self.dedup_ttl_ms
            if self.debounce:
                options["db"] = True
        if self.dependency:
            options["dp"] = self.dependency
        if self.completed_kept_ms is not None:
            options["kc"] = self.completed_kept_ms
        if self.failed_kept_ms is not None:
            options["kf"] = self.failed_kept_ms
        if self.spec.needs:
            options["nd"] = True
        if self.flow is not None:
            options["fl"] = self.flow.options(self.id)
        return options


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The answer to one submission. For ``replayed``, ``conflict`` and ``duplicate``, ``id`` is the job that was there before."""

    outcome: Outcome
    id: str
    position: str


def submission_args(job: Submission) -> tuple[bytes | str | int, ...]:
    """Return a job as ``storing.lua`` reads it."""
    return (
        job.id, job.queue, job.priority, job.due, job.spec.tenant.scope, job.spec.max_attempts,
        job.idempotency_key, job.fingerprint, IDEMPOTENCY_KEPT_MS, job.spec.to_json(), job.options_json(),
    )  # fmt: skip


def enqueue(shard: int, jobs: Sequence[Submission], *, all_or_none: bool = False) -> Command[list[Enqueued]]:
    """Store jobs of one shard in one atomic step."""
    args: list[bytes | str | int] = [int(all_or_none), MAX_QUEUE_LENGTH]
    for job in jobs:
        args += submission_args(job)

    def parse(reply: Any) -> list[Enqueued]:
        return [
            Enqueued(Outcome(o.decode()), i.decode(), f"{e.decode()}:{n.decode()}") for o, i, e, n in reply
        ]

    return Command("enqueue", shard, args, parse)
