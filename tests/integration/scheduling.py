"""What tests of schedules share: a job type that the test holds back, and schedulers over one store."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel, Field

from tests.integration.running import Jobs
from tidings_tasks import JobCancelled, JobContext, job
from tidings_tasks.queue.queues import BUILT_IN_POLICIES
from tidings_tasks.schedules import Schedule
from tidings_tasks.schedules.book import API, ScheduleBook
from tidings_tasks.schedules.scheduler import Scheduler
from tidings_tasks.store import JobRecord, Tenant, commands, schedule_commands
from tidings_tasks.store.schedule_commands import Fired, ScheduleRecord

HOUR_MS = 3_600_000
SYSTEM = Tenant("system")


class Rows(BaseModel):
    rows: int = Field(ge=1)
    note: str = ""


class Desk:
    """A job type whose runs the test holds back, and the store with a book and schedulers over it."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.registry = jobs.registry
        self.release = asyncio.Event()
        self.begun: list[str] = []
        self.ended: list[tuple[str, str]] = []
        self.book = ScheduleBook(jobs.store, self.registry, BUILT_IN_POLICIES)
        self.fired: list[tuple[str, int, Fired]] = []

        @job("test.hold", registry=self.registry)
        async def hold(ctx: JobContext, input: Rows) -> str:
            """Wait until the test says so, and return the due time."""
            due = str(ctx.metadata["due"])
            self.begun.append(due)
            try:
                await self.release.wait()
            except JobCancelled:
                self.ended.append((due, "cancelled"))
                raise
            self.ended.append((due, "done"))
            return due

    def scheduler(self, **options: Any) -> Scheduler:
        """Make one more scheduler of this store."""
        policies = options.pop("policies", BUILT_IN_POLICIES)
        registry = options.pop("registry", self.registry)
        return Scheduler(
            self.jobs.store, registry, policies, on_fired=lambda *fired: self.fired.append(fired), **options
        )

    async def now_ms(self) -> int:
        """Ask for the store's time."""
        return (await self.jobs.store.run(schedule_commands.due_schedules(0))).now_ms

    async def put_overdue(self, behind_ms: int, **fields: Any) -> Schedule:
        """Store a schedule whose next due time was so long ago."""
        schedule = Schedule.model_validate(
            {"name": "nightly", "type": "test.hold", "input": {"rows": 1}} | fields
        )
        next_ms = schedule.timing.last_at(await self.now_ms() - behind_ms)
        await self.jobs.store.run(
            schedule_commands.put_schedule(
                0, schedule.name, version="v", definition=schedule.model_dump_json().encode(),
                origin=API, timing="t", next_ms=next_ms,
            )
        )  # fmt: skip
        return schedule

    async def record(self, name: str = "nightly") -> ScheduleRecord:
        """Read what the store keeps of a schedule."""
        return (await self.book.get(name)).record

    async def runs(self) -> list[JobRecord]:
        """Read all jobs of the system, the oldest due time first."""
        found = await self.jobs.store.run(commands.list_jobs(0, SYSTEM, limit=1_000))
        return sorted(found, key=lambda record: str((record.spec.metadata or {})["due"]))


def make(name: str = "often", **fields: Any) -> Schedule:
    """Make a schedule that is due ten times a second."""
    return Schedule.model_validate(
        {"name": name, "type": "test.hold", "input": {"rows": 1}, "every_s": 0.1} | fields
    )


async def look_to_the_end(scheduler: Scheduler) -> None:
    """Look until nothing is due: what is caught up may take several calls."""
    for _ in range(100):
        if await scheduler.look(0) > 0.01:
            return
    raise AssertionError("something is due for ever")
