"""Limits that settings declare: written into the store by whoever starts, and held over all workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio

from tests.integration.running import Jobs, open_jobs, running_worker
from tests.support.rest import make_settings, serve
from tests.support.timing import eventually
from tidings.protocol import JobState
from tidings_server.context import STORE
from tidings_tasks import JobContext, job
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.queue.limit_keeper import LimitKeeper
from tidings_tasks.registry import Registry
from tidings_tasks.settings import Settings
from tidings_tasks.store import Keyspace, Store, commands
from tidings_tasks.store.limits import QueueLimits, Rate


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace, registry: Registry) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, keyspace, registry) as found:
        yield found


async def limits_in(store: Store, queue: str) -> QueueLimits:
    """What the first shard has of a queue."""
    (found,) = await store.run(commands.read_queues(0, [queue]))
    return found.limits


async def test_a_rate_holds_for_each_owner_and_costs_no_try(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """Ten of `ai` start at once, the eleventh says what it waits for; a worker has written the built-in limits."""

    @job("ask", queue="ai", registry=registry)
    async def ask(ctx: JobContext) -> None: ...

    ids = [await jobs.submit(ask) for _ in range(11)]
    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        for job_id in ids[:10]:
            await jobs.until(job_id)
        last = await jobs.read(ids[10])
    assert (last.state, last.waiting_for, last.tries) == (JobState.QUEUED, "rate_limit", 0)
    assert (await limits_in(jobs.store, "ai")).rate_per_owner == Rate(10, 60, 10)


async def test_max_running_holds_over_all_workers(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """Two workers of ten slots each run two jobs together, and go on when one has ended."""
    running = most = 0
    release = asyncio.Event()

    @job("count", registry=registry)
    async def count(ctx: JobContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    declared = {"default": {"max_running": 2}}
    async with (
        running_worker(valkey_url, keyspace, registry, tmp_path, declared=declared),
        running_worker(valkey_url, keyspace, registry, tmp_path, declared=declared),
    ):
        ids = [await jobs.submit(count) for _ in range(6)]
        await eventually(lambda: running == 2)
        release.set()
        for job_id in ids:
            await jobs.until(job_id)
    assert most == 2


async def test_a_store_that_lost_its_limits_gets_them_again(
    private_valkey: EmbeddedValkey, keyspace: Keyspace
) -> None:
    """Each shard for itself; limits of another process's settings are left alone."""
    settings = Settings(env="test", queues={"films": {"rate": "5/s"}})
    store = Store(private_valkey.url, Keyspace(keyspace.prefix, shards=2))
    other = {"films": QueueLimits(max_length=7)}
    try:
        keeper = LimitKeeper(store, settings)
        for shard in (0, 1):
            await keeper.write(shard)
        await store.run(commands.configure(1, queues=other))
        watching = asyncio.create_task(keeper.watch(every_s=0.01), name="watch the limits")
        async with redis.asyncio.Redis.from_url(private_valkey.url) as raw:
            await raw.flushdb()

        async def is_back() -> bool:
            return (await limits_in(store, "films")).rate == Rate(5, 1, 5)

        await eventually(is_back)
        await store.run(commands.configure(0, queues=other))
        await store.run(commands.configure(0, queues={"ai": QueueLimits()}))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert await limits_in(store, "films") == QueueLimits(max_length=7)
    finally:
        await store.aclose()


async def test_a_server_writes_what_its_settings_declare(
    valkey_url: str, key_prefix: str, tmp_path: Path
) -> None:
    """So that a queue's bound and a breaker hold before any worker was started; job types show the times."""
    settings = make_settings(
        tmp_path, key_prefix,
        queues={"reports": {"max_length": 1, "timeout_s": 77}}, dependencies={"openai": {"failures": 2}},
    )  # fmt: skip
    async with serve(settings, valkey_url) as rest:
        store = rest.app[STORE]

        async def is_written() -> bool:
            return (await limits_in(store, "reports")).max_length == 1

        await eventually(is_written)
        _, body = await rest.call("GET", "/api/job-types")
        (found,) = [entry for entry in body["job_types"] if entry["type"] == "test.rows"]
        assert found["timeout_s"] == 77
        await rest.submit()
        answer, problem = await rest.call(
            "POST", "/api/jobs", json={"type": "test.rows", "input": {"rows": 1}}
        )
        assert (answer.status, problem["code"]) == (429, "queue_full")
        two = {"jobs": [{"type": "test.rows", "input": {"rows": 1}}] * 2}
        answer, problem = await rest.call("POST", "/api/jobs/batch", json=two)
        assert (answer.status, problem["errors"][0]["code"]) == (422, "over_the_queue"), (
            "waiting mends nothing"
        )
