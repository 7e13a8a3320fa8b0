"""Workers show themselves in the store: what they run, how long it took, and that they have gone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

import tidings
from tests.integration.running import Jobs, open_jobs, running_worker
from tests.integration.worker_processes import dramatiq_process, worker_environ, worker_process
from tests.support.timing import eventually
from tidings_tasks import JobContext, SyncJobContext, heartbeat, job
from tidings_tasks.registry import Registry
from tidings_tasks.store import Keyspace, WorkerInfo, worker_commands
from tidings_tasks.worker import crew


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace, registry: Registry) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, keyspace, registry) as found:
        yield found


async def list_workers(jobs: Jobs) -> list[WorkerInfo]:
    """Ask who lives."""
    return await jobs.store.run(worker_commands.list_workers())


async def test_a_worker_shows_what_it_runs_and_did(
    jobs: Jobs,
    valkey_url: str,
    keyspace: Keyspace,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its running jobs while they run, its counts after, the durations of what it completed, and nothing once it ended."""
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.05)
    may_end = asyncio.Event()

    @job("waits", registry=registry)
    async def waits(ctx: JobContext) -> None:
        await may_end.wait()

    @job("fails", max_attempts=1, registry=registry)
    def fails(ctx: SyncJobContext) -> None:
        raise RuntimeError

    job_id = await jobs.submit(waits)
    await jobs.submit(fails)
    async with running_worker(valkey_url, keyspace, registry, tmp_path, worker_id="w7", worker_concurrency=3):

        async def shown() -> WorkerInfo | None:
            listed = await list_workers(jobs)
            return listed[0] if listed and listed[0].running and listed[0].failed else None

        found = await eventually(shown)
        assert found is not None
        assert (found.id, found.pid, found.concurrency) == ("w7", os.getpid(), 3)
        assert (found.runtime, found.version) == ("tidings", tidings.__version__)
        assert "default" in found.queues
        assert found.rss_bytes > 1_000_000
        [running] = found.running
        assert (running.id, running.type, found.running_count) == (job_id, "waits", 1)
        record = await jobs.read(job_id)
        assert record.started_ms is not None
        assert abs(running.since_ms - record.started_ms) < 5_000
        may_end.set()

        async def counted() -> bool:
            [info] = await list_workers(jobs)
            return info.done == 1 and not info.running

        await eventually(counted)
        durations = await jobs.store.run(worker_commands.read_durations(["waits", "fails"]))
        assert set(durations) == {"waits"}
    assert await list_workers(jobs) == []


async def test_last_durations_are_not_lost_with_the_worker(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """What was completed since the last beat goes with the last one."""

    @job("quick", registry=registry)
    async def quick(ctx: JobContext) -> None: ...

    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        for _ in range(3):
            await jobs.until(await jobs.submit(quick))
    durations = await jobs.store.run(worker_commands.read_durations(["quick"]))
    assert durations["quick"].count == 3


async def test_a_killed_worker_vanishes_and_an_ended_one_is_gone_at_once(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """Real processes: SIGKILL leaves a beat that expires, SIGTERM takes it away."""
    environ = worker_environ(valkey_url, keyspace, tmp_path)

    async def names() -> set[str]:
        return {info.id for info in await list_workers(jobs)}

    with (
        worker_process("tidings_tasks.demo", environ=environ | {"WORKER_ID": "one"}) as one,
        worker_process("tidings_tasks.demo", environ=environ | {"WORKER_ID": "two"}) as two,
    ):

        async def both() -> bool:
            return await names() == {"one", "two"}

        await eventually(both)
        two.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(two.wait, 30) == 0
        assert await names() == {"one"}
        one.kill()
        await asyncio.to_thread(one.wait, 30)

        async def none() -> bool:
            return not await names()

        await eventually(none, heartbeat.BEAT_TTL_S + 2)


async def test_the_stock_dramatiq_command_beats_too(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """Its process is listed with what it runs."""
    (tmp_path / "actors.py").write_text(
        "import dramatiq, time\n"
        "from tidings_tasks.queue.broker import TidingsBroker\n"
        "from tidings_tasks.settings import load_settings\n"
        "dramatiq.set_broker(TidingsBroker(load_settings()))\n"
        "@dramatiq.actor\n"
        "def nothing(): ...\n"
    )
    environ = worker_environ(valkey_url, keyspace, tmp_path) | {
        "PYTHONPATH": os.environ.get("PYTHONPATH", "")
    }
    with dramatiq_process("actors", environ=environ, cwd=tmp_path):

        async def shown() -> WorkerInfo | None:
            listed = await list_workers(jobs)
            return listed[0] if listed else None

        found = await eventually(shown, 30)
    assert found is not None
    assert found.runtime == "dramatiq"
    assert "default" in found.queues


async def test_what_a_job_uses_is_kept_with_its_attempt(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """CPU time is that of the function's own steps or thread, not of what it waits for."""
    used: dict[str, float] = {}

    def spin() -> None:
        until = 0
        for number in range(2_000_000):
            until += number

    @job("spins", registry=registry)
    async def spins(ctx: JobContext) -> None:
        spin()
        await asyncio.sleep(0.2)

    @job("spins.sync", registry=registry)
    def spins_sync(ctx: SyncJobContext) -> None:
        spin()

    @job("idles", registry=registry)
    async def idles(ctx: JobContext) -> None:
        await asyncio.sleep(0.2)

    @job("breaks", max_attempts=1, registry=registry)
    async def breaks(ctx: JobContext) -> None:
        raise RuntimeError

    class Watching(crew.Tally):
        def count(self, attempt, verb) -> None:  # type: ignore[no-untyped-def]
            assert attempt.usage is not None
            assert attempt.usage.memory_peak_bytes > 1_000_000
            used[attempt.spec.type] = attempt.usage.cpu_s

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidings_tasks.worker.runtime.Tally", Watching)
        async with running_worker(valkey_url, keyspace, registry, tmp_path):
            for kind in (spins, spins_sync, idles, breaks):
                record = await jobs.until(await jobs.submit(kind))
                assert record.usage is not None
                assert set(orjson.loads(record.usage)) == {"cpu_s", "memory_peak_bytes"}
    assert 0.01 < used["spins"] < 2
    assert 0.01 < used["spins.sync"] < 2
    assert used["idles"] < 0.02
