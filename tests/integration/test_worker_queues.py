"""What a worker claims, when, and how much at once; and its own port."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.running import Jobs, open_jobs, running_worker
from tests.support.timing import eventually, scaled
from tidings.protocol import JobState, shard_of
from tidings_tasks import JobContext, SyncJobContext, job
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.registry import Registry
from tidings_tasks.settings import Settings
from tidings_tasks.store import Keyspace, StoreMismatch, Tenant
from tidings_tasks.worker import WorkerExhausted
from tidings_tasks.worker.runtime import Worker
from tidings_tasks.worker.slots import TURN_EVERY


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace, registry: Registry) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, keyspace, registry) as found:
        yield found


async def test_queues_are_served_by_priority(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """A worker with one slot takes the critical job first, and the first come of a queue before the next."""
    order: list[str] = []

    @job("mark", registry=registry)
    async def mark(ctx: JobContext) -> None:
        order.append(ctx.job_id)

    late = await jobs.submit(mark, queue="scheduled")
    first, second = await jobs.submit(mark), await jobs.submit(mark)
    urgent = await jobs.submit(mark, priority=1)
    critical = await jobs.submit(mark, queue="critical")
    async with running_worker(valkey_url, keyspace, registry, tmp_path, worker_concurrency=1):
        await jobs.until(late)
    assert order == [critical, urgent, first, second, late]


async def test_no_more_jobs_run_than_there_are_slots(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """The bound holds over all queues together, and a slot that is freed is used at once."""
    running = most = 0
    release = asyncio.Event()

    @job("count", registry=registry)
    async def count(ctx: JobContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    ids = [await jobs.submit(count, queue=queue) for queue in ("default", "ai", "emails") for _ in range(3)]
    async with running_worker(valkey_url, keyspace, registry, tmp_path, worker_concurrency=4):
        await eventually(lambda: running == 4)
        release.set()
        for job_id in ids:
            await jobs.until(job_id)
    assert most == 4


async def test_idle_worker_picks_a_job_up_at_once(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """A wake token, not a poll: the median of twenty is far below the worker's one-second tick."""

    @job("quick", registry=registry)
    async def quick(ctx: JobContext) -> None:
        loop.call_soon(done.set)

    loop, done = asyncio.get_running_loop(), asyncio.Event()
    took: list[float] = []
    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        for _ in range(20):
            done.clear()
            started = time.monotonic()
            job_id = await jobs.submit(quick)
            await done.wait()
            took.append(time.monotonic() - started)
            await jobs.until(job_id)
    assert sorted(took)[10] < scaled(0.25)


async def test_delayed_job_starts_when_it_is_due(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """Not before its time, and not at the next tick but when it is due."""

    @job("due", registry=registry)
    async def due(ctx: JobContext) -> None: ...

    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        job_id = await jobs.submit(due, delay_s=0.3)
        assert (await jobs.read(job_id)).state is JobState.SCHEDULED
        record = await jobs.until(job_id)
    assert record.started_ms is not None
    assert 300 <= record.started_ms - record.created_ms < 300 + scaled(600)


async def test_restricted_worker_leaves_other_queues_alone(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """``queues`` names all that are served."""

    @job("any", registry=registry)
    async def anything(ctx: JobContext) -> None: ...

    other = await jobs.submit(anything, queue="emails")
    async with running_worker(valkey_url, keyspace, registry, tmp_path, queues=["ai"]):
        await jobs.until(await jobs.submit(anything, queue="ai"))
    assert (await jobs.read(other)).state is JobState.QUEUED


async def test_one_worker_serves_all_shards(
    valkey_url: str, key_prefix: str, registry: Registry, tmp_path: Path
) -> None:
    """Tenants live on different shards; their jobs run, are cancelled and finish alike."""
    keyspace = Keyspace(key_prefix, shards=3)

    @job("shared", registry=registry)
    async def shared(ctx: JobContext) -> None:
        await ctx.output("started")
        await asyncio.sleep(3600)

    async with (
        open_jobs(valkey_url, keyspace, registry) as jobs,
        running_worker(valkey_url, keyspace, registry, tmp_path, worker_concurrency=30),
    ):
        ids = [await jobs.submit(shared, tenant=Tenant(f"owner{n}")) for n in range(12)]
        assert {shard_of(job_id) for job_id in ids} == {0, 1, 2}
        for job_id in ids:
            await jobs.until_kind(job_id, "output")
            await jobs.cancel(job_id)
        for job_id in ids:
            assert (await jobs.until(job_id)).state is JobState.CANCELLED


async def test_worker_waits_for_a_store_that_is_not_there_yet(
    private_valkey: EmbeddedValkey, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """It says that it is ready only when it has the store."""
    ready = asyncio.Event()

    @job("first", registry=registry)
    async def first(ctx: JobContext) -> None: ...

    private_valkey.kill()
    async with running_worker(private_valkey.url, keyspace, registry, tmp_path, ready=ready.set):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await ready.wait()
        private_valkey.start()
        async with asyncio.timeout(scaled(10)):
            await ready.wait()
        async with open_jobs(private_valkey.url, keyspace, registry) as jobs:
            assert (await jobs.until(await jobs.submit(first))).state is JobState.COMPLETED


async def test_store_of_another_installation_ends_the_worker(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """A wrong shard count is an error to be mended, not to be waited for."""

    @job("any", registry=registry)
    async def anything(ctx: JobContext) -> None: ...

    await jobs.submit(anything)
    with pytest.raises(StoreMismatch, match="shards"):
        async with running_worker(
            valkey_url, Keyspace(keyspace.prefix, shards=2), registry, tmp_path
        ) as worker:
            await worker.ended()


async def test_worker_without_usable_threads_ends_with_an_error(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """Stuck functions cost a thread each; when as many are stuck as there may be, a fresh process is needed."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    @job("stuck", timeout_s=0.05, max_attempts=1, registry=registry)
    def stuck(ctx: SyncJobContext) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)

    @job("waiting", registry=registry)
    async def waiting(ctx: JobContext) -> None:
        await asyncio.sleep(3600)

    other = await jobs.submit(waiting)
    ids = [await jobs.submit(stuck) for _ in range(2)]
    with pytest.raises(WorkerExhausted):
        async with running_worker(valkey_url, keyspace, registry, tmp_path, worker_threads=2) as worker:
            await worker.ended()
    release.set()
    for job_id in ids:
        assert (await jobs.read(job_id)).state is JobState.FAILED
    assert (await jobs.read(other)).state is JobState.QUEUED


async def test_health_and_metrics(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """Alive always; ready while it takes jobs; the numbers tell what ran."""
    release = asyncio.Event()

    @job("held", registry=registry)
    async def held(ctx: JobContext) -> None:
        await release.wait()

    settings = Settings(
        env="test", key_prefix=keyspace.prefix, data_dir=tmp_path, worker_port=0, shutdown_grace_s=20
    )
    worker = Worker(settings, store_url=valkey_url, queues=None, registry=registry)
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop, asyncio.Event(), None))
    port = await eventually(lambda: worker.health_port)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:

        async def get(path: str) -> tuple[int, str]:
            async with client.get(path) as response:
                return response.status, await response.text()

        async def ready(status: int) -> bool:
            return (await get("/health/ready"))[0] == status

        assert (await get("/health/live"))[0] == 200
        await eventually(lambda: ready(200))
        job_id = await jobs.submit(held)
        await jobs.until(job_id, JobState.RUNNING)

        async def shown() -> str | None:
            # The store knows that the job runs before the worker does.
            text = (await get("/metrics"))[1]
            return text if re.search(r"^tidings_worker_running 1\.0$", text, re.MULTILINE) else None

        text = await eventually(shown)
        assert text is not None
        assert 'tidings_worker_attempts_started_total{type="held"} 1.0' in text
        stop.set()
        await eventually(lambda: ready(503))
        assert (await get("/health/live"))[0] == 200
        release.set()
        await task
    assert (await jobs.read(job_id)).state is JobState.COMPLETED


async def test_a_queue_runs_no_more_jobs_than_its_concurrency(
    valkey_url: str, key_prefix: str, registry: Registry, tmp_path: Path
) -> None:
    """One bound for all shards; what is free beside it is for other queues, and a slot that it frees is used at once."""
    keyspace = Keyspace(key_prefix + "-shards", shards=3)
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    release = asyncio.Event()

    @job("count", registry=registry)
    async def count(ctx: JobContext) -> None:
        queue = ctx.metadata["queue"]
        running[queue] += 1
        most[queue] = max(most[queue], running[queue])
        await release.wait()
        running[queue] -= 1

    async with open_jobs(valkey_url, keyspace, registry) as jobs:
        ids = [
            await jobs.submit(count, queue=queue, metadata={"queue": queue}, tenant=Tenant(f"owner{n}"))
            for queue in ("embeddings", "default")
            for n in range(9)
        ]
        async with running_worker(
            valkey_url,
            keyspace,
            registry,
            tmp_path,
            worker_concurrency=20,
            declared={"embeddings": {"concurrency": 2}},
        ):
            await eventually(lambda: running == {"embeddings": 2, "default": 9})
            release.set()
            for job_id in ids:
                await jobs.until(job_id)
    assert most["embeddings"] == 2


async def test_a_full_queue_that_is_free_again_is_heard_at_once(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """Its next job does not wait until the worker has done listening to the others."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    @job("quick", registry=registry)
    async def quick(ctx: JobContext) -> None:
        loop.call_soon(done.set)

    took: list[float] = []
    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        for _ in range(20):
            done.clear()
            started = time.monotonic()
            job_id = await jobs.submit(quick, queue="scheduled")
            await done.wait()
            took.append(time.monotonic() - started)
            await jobs.until(job_id)
    assert sorted(took)[10] < scaled(0.1)


async def test_low_queues_are_not_starved(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """One slot and more critical jobs than it gets through: the others have their turns all the same."""
    order: list[str] = []

    @job("mark", registry=registry)
    async def mark(ctx: JobContext) -> None:
        order.append(ctx.metadata["queue"])

    ids = [
        await jobs.submit(mark, queue=queue, metadata={"queue": queue})
        for queue in (*["critical"] * 40, "scheduled", "default")
    ]
    async with running_worker(valkey_url, keyspace, registry, tmp_path, worker_concurrency=1):
        for job_id in ids:
            await jobs.until(job_id)
    assert order.index("default") < 2 * TURN_EVERY
    assert order.index("scheduled") < 2 * TURN_EVERY


@pytest.mark.parametrize(("profile", "served", "most"), [("ai", "ai", 5), ("scheduled", "maintenance", 1)])
async def test_a_worker_serves_the_queues_of_its_profile(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path,
    profile: str, served: str, most: int,
) -> None:  # fmt: skip
    """Those alone, and as many jobs at once as the profile says."""
    running = 0
    release = asyncio.Event()

    @job("held", registry=registry)
    async def held(ctx: JobContext) -> None:
        nonlocal running
        running += 1
        await release.wait()
        running -= 1

    other = await jobs.submit(held, queue="emails")
    ids = [await jobs.submit(held, queue=served) for _ in range(7)]
    async with running_worker(valkey_url, keyspace, registry, tmp_path, worker_profile=profile):
        await eventually(lambda: running == most)
        states = [(await jobs.read(job_id)).state for job_id in ids]
        assert states.count(JobState.RUNNING) == most
        release.set()
        for job_id in ids:
            await jobs.until(job_id)
    assert (await jobs.read(other)).state is JobState.QUEUED
