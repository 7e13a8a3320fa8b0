"""From a schedule and a due time to the job that is stored, and to the call that fires it. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

from tidings.protocol import make_job_id
from tidings.protocol.errors import InvalidInput, UnknownJobType

from ..queue.queues import QueuePolicy
from ..registry import Registry
from ..store import Command, Keyspace, Submission, iso_time
from ..store.schedule_commands import DueSchedule, Fired, fire_schedule
from ..submission import prepare
from .schedule import Overlap, Schedule
from .timing import jitter_ms, plan_fire

__all__ = ["MAX_JOBS_A_FIRING", "Press"]

MAX_JOBS_A_FIRING = 50
"""What is to be caught up beyond this is stored by the next call, so that no script takes long."""

_PATIENCE_MS = 10_000


class Press:
    """Makes the jobs of schedules, of the types and by the queues' policies that this process knows."""

    def __init__(self, keyspace: Keyspace, registry: Registry, policies: Mapping[str, QueuePolicy]) -> None:
        self._keyspace = keyspace
        self._registry = registry
        self._policies = policies

    def make_run(
        self, schedule: Schedule, due_ms: int, *, job_id: str | None = None
    ) -> tuple[int, Submission]:
        """Return the shard and the job of a due time. Without ``job_id``, every process makes the same one for it.

        Raises:
            UnknownJobType: this process does not have the schedule's type.
            InvalidInput: the input or the queue is not valid, or not any more; with an entry for each field.
        """
        shard, job = prepare(
            self._registry.get(schedule.type),
            schedule.tenant,
            self._keyspace,
            input=schedule.input,
            queue=schedule.queue,
            priority=schedule.priority,
            tags=schedule.tags,
            metadata={"schedule": schedule.name, "due": iso_time(due_ms)},
            registry=self._registry,
            policies=self._policies,
        )
        begins_ms = due_ms + jitter_ms(schedule.name, due_ms, round(schedule.jitter_s * 1000))
        job = dataclasses.replace(job, id=job_id or _job_id(shard, schedule.name, due_ms), due=str(begins_ms))
        if schedule.expires_s is not None:
            job = dataclasses.replace(job, expires=str(begins_ms + round(schedule.expires_s * 1000)))
        if schedule.overlap is not Overlap.SKIP:
            # What is queued behind or replaces a job that runs begins only when that one has really ended.
            job = dataclasses.replace(job, concurrency_key=f"schedule:{schedule.name}", concurrency_limit=1)
        return shard, job

    def make_fire(self, schedule: Schedule, due: DueSchedule, now_ms: int) -> Command[Fired]:
        """Decide about everything that is due by now.

        Raises:
            UnknownJobType: this process does not have the schedule's type; another one will.
            InvalidInput: the input is not valid here, and it was not due long ago: in a rolling upgrade another process may
                accept it. After 10 s the run is skipped instead, with the reason.
        """
        timing = schedule.timing
        plan = plan_fire(
            timing,
            due.due_ms,
            now_ms,
            catch_up=schedule.catch_up,
            limit=schedule.catch_up_limit,
            on_time_ms=round(schedule.on_time_s * 1000),
        )
        runs, later = plan.due[:MAX_JOBS_A_FIRING], plan.due[MAX_JOBS_A_FIRING:]
        why_not = ""
        jobs: list[tuple[int, Submission]] = []
        try:
            jobs = [(run_ms, self.make_run(schedule, run_ms)[1]) for run_ms in runs]
        except UnknownJobType:
            raise
        except InvalidInput as error:
            if now_ms - due.due_ms < _PATIENCE_MS:
                raise
            why_not, later = error.detail[:500], []
        return fire_schedule(
            self._keyspace.shard_of_tenant(schedule.tenant),
            schedule.name,
            version=due.version,
            due_ms=due.due_ms,
            last_due_ms=runs[-1] if later else timing.last_at(now_ms) or due.due_ms,
            next_ms=later[0] if later else plan.next_ms,
            overlap=schedule.overlap,
            missed=plan.missed,
            why_not=why_not,
            jobs=jobs,
        )


def _job_id(shard: int, name: str, due_ms: int) -> str:
    digest = hashlib.blake2b(f"{name}\n{due_ms}".encode(), digest_size=10).digest()
    return make_job_id(shard, due_ms, int.from_bytes(digest, "big"))
