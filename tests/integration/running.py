"""A worker running in the test's own loop, on a registry of the test's own, and what a test asks about its jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from tests.support.timing import eventually, scaled
from tidings.protocol import BEGINNING, JobState, Position
from tidings_tasks.job_type import JobType
from tidings_tasks.registry import Registry
from tidings_tasks.settings import Settings
from tidings_tasks.store import JobRecord, Keyspace, Store, Tenant, commands
from tidings_tasks.submission import check_enqueued, prepare
from tidings_tasks.worker import run_worker

OWNER = Tenant("alice", "acme")


class Jobs:
    """Submits jobs and reads what became of them."""

    def __init__(self, store: Store, registry: Registry) -> None:
        self.store, self.registry = store, registry

    async def submit(self, job_type: JobType[Any, Any], input: Any = None, **options: Any) -> str:
        tenant = options.pop("tenant", OWNER)
        shard, submission = prepare(
            job_type, tenant, self.store.keyspace, input=input, registry=self.registry, **options
        )
        return check_enqueued(await self.store.run(commands.enqueue(shard, [submission])))[0]

    async def read(self, job_id: str) -> JobRecord:
        record = await self.store.run(commands.read_job(job_id))
        assert record is not None
        return record

    async def events(self, job_id: str, *kinds: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        after = BEGINNING
        while True:
            page = await self.store.run(commands.read_events(job_id, after))
            assert page is not None
            if not page.events:
                break
            events += [orjson.loads(text) for text in page.events]
            after = Position(page.epoch, events[-1]["seq"])
        return [event for event in events if not kinds or event["kind"] in kinds]

    async def kinds(self, job_id: str) -> list[str]:
        return [event["kind"] for event in await self.events(job_id)]

    async def until(self, job_id: str, *states: JobState, timeout_s: float = 10.0) -> JobRecord:
        """Wait until the job is in one of the states; without any, until it has ended."""

        async def reached() -> JobRecord | None:
            record = await self.read(job_id)
            return record if (record.state in states if states else record.state.is_terminal) else None

        found = await eventually(reached, timeout_s)
        assert found is not None
        return found

    async def until_kind(
        self, job_id: str, kind: str, count: int = 1, timeout_s: float = 10.0
    ) -> list[dict[str, Any]]:
        """Wait until the log has so many events of a kind, and return them."""

        async def found() -> list[dict[str, Any]] | None:
            events = await self.events(job_id, kind)
            return events if len(events) >= count else None

        events = await eventually(found, timeout_s)
        assert events is not None
        return events

    async def cancel(self, job_id: str) -> str:
        return (await self.store.run(commands.cancel(job_id, by=b'"alice"')))[0]


class RunningWorker:
    """A worker under way: ``stop`` and ``hurry`` are its signals, ``task`` is its end."""

    def __init__(self, task: asyncio.Task[None], stop: asyncio.Event, hurry: asyncio.Event) -> None:
        self.task, self.stop, self.hurry = task, stop, hurry

    async def ended(self, timeout_s: float = 15.0) -> None:
        async with asyncio.timeout(scaled(timeout_s)):
            await self.task


@asynccontextmanager
async def open_jobs(url: str, keyspace: Keyspace, registry: Registry) -> AsyncIterator[Jobs]:
    store = Store(url, keyspace)
    try:
        yield Jobs(store, registry)
    finally:
        await store.aclose()


@asynccontextmanager
async def running_worker(
    url: str,
    keyspace: Keyspace,
    registry: Registry,
    data_dir: Path,
    *,
    queues: list[str] | None = None,
    ready: Callable[[], None] | None = None,
    declared: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[RunningWorker]:
    made = Settings(
        env="test", key_prefix=keyspace.prefix, shards=keyspace.shards, data_dir=data_dir,
        queues=declared or {}, **settings,
    )  # fmt: skip
    stop, hurry = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        run_worker(
            made, store_url=url, queues=queues, registry=registry, stop=stop, hurry=hurry, ready=ready
        ),
        name="the test's worker",
    )
    running = RunningWorker(task, stop, hurry)
    try:
        yield running
    finally:
        stop.set()
        hurry.set()
        await running.ended()
