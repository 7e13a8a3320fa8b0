"""Nothing is lost when a worker process or the store dies in the middle of a job."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.integration.running import Jobs, open_jobs, running_worker
from tests.integration.worker_processes import end_process, worker_environ, worker_process
from tests.support.timing import eventually, scaled
from tidings.protocol import JobState
from tidings_tasks import JobContext, SyncJobContext, demo, job
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.registry import REGISTRY, Registry
from tidings_tasks.store import Keyspace, Store

LEASE_S = 1.0


def test_killed_worker_process_loses_no_job(valkey_url: str, keyspace: Keyspace, tmp_path: Path) -> None:
    """SIGKILL mid-job: the lease lapses, the job runs again elsewhere, and the log tells it."""
    environ = worker_environ(valkey_url, keyspace, tmp_path, lease_s=LEASE_S)

    async def check(store: Store) -> None:
        jobs = Jobs(store, REGISTRY)
        job_id = await jobs.submit(demo.steps, {"steps": 5, "crash_at": 3})
        record = await jobs.until(job_id, timeout_s=20)
        assert (record.state, record.result) == (JobState.COMPLETED, b'{"steps":5,"attempt":2}')
        assert record.tries == 1
        kinds = [(e["attempt"], e["kind"]) for e in await jobs.events(job_id)]
        assert kinds == [
            (0, "queued"), (1, "started"), (1, "progress"), (1, "retrying"), (1, "queued"),
            (2, "started"), (2, "progress"), (2, "completed"),
        ]  # fmt: skip
        (retrying,) = await jobs.events(job_id, "retrying")
        assert retrying["data"]["error"]["code"] == "worker_lost"

    with (
        worker_process("tidings_tasks.demo", environ=environ | {"WORKER_CONCURRENCY": "1"}) as one,
        worker_process("tidings_tasks.demo", environ=environ | {"WORKER_CONCURRENCY": "1"}) as two,
    ):
        asyncio.run(_with_store(valkey_url, keyspace, check))
        assert sorted(process.poll() is None for process in (one, two)) == [False, True]
        status = one.poll() if one.poll() is not None else two.poll()
        assert status == -signal.SIGKILL


def test_job_that_kills_every_worker_is_dead_after_the_third(
    valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """A job must not take down worker after worker."""
    environ = worker_environ(valkey_url, keyspace, tmp_path, lease_s=0.5)
    (tmp_path / "killers.py").write_text(
        "import os, signal\n"
        "from tidings_tasks import JobContext, job\n"
        "@job('kill', max_attempts=10)\n"
        "async def kill(ctx: JobContext) -> None:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    registry = Registry()

    @job("kill", max_attempts=10, registry=registry)
    async def kill(ctx: JobContext) -> None: ...

    async def submit(store: Store) -> None:
        nonlocal job_id
        job_id = await Jobs(store, registry).submit(kill)

    async def check(store: Store) -> None:
        jobs = Jobs(store, registry)
        record = await jobs.until(job_id)
        assert (record.state, record.attempt) == (JobState.FAILED, 3)
        (failed,) = await jobs.events(job_id, "failed")
        assert failed["data"]["dead"] is True
        assert failed["data"]["error"]["code"] == "worker_lost"

    job_id = ""
    asyncio.run(_with_store(valkey_url, keyspace, submit))
    for _ in range(3):
        with worker_process("killers", environ=environ, cwd=tmp_path) as process:
            assert process.wait(scaled(20)) == -signal.SIGKILL
    with worker_process("killers", environ=environ, cwd=tmp_path):
        asyncio.run(_with_store(valkey_url, keyspace, check))


def test_sigterm_hands_back_and_exits_with_zero(valkey_url: str, keyspace: Keyspace, tmp_path: Path) -> None:
    """A deployment's worker ends in time, and its jobs go on elsewhere."""
    environ = worker_environ(valkey_url, keyspace, tmp_path, shutdown_grace_s=0.2)

    async def start(store: Store) -> None:
        nonlocal job_id
        jobs = Jobs(store, REGISTRY)
        job_id = await jobs.submit(demo.steps, {"steps": 1000, "delay_ms": 50})
        await jobs.until_kind(job_id, "progress")

    async def check(store: Store) -> None:
        record = await Jobs(store, REGISTRY).read(job_id)
        assert (record.state, record.tries, record.attempt) == (JobState.QUEUED, 0, 1)

    job_id = ""
    with worker_process("tidings_tasks.demo", environ=environ) as process:
        asyncio.run(_with_store(valkey_url, keyspace, start))
        started = time.monotonic()
        assert end_process(process) == 0
        assert time.monotonic() - started < scaled(5)
        asyncio.run(_with_store(valkey_url, keyspace, check))


async def test_store_that_dies_mid_job_loses_nothing(
    private_valkey: EmbeddedValkey, keyspace: Keyspace, tmp_path: Path
) -> None:
    """Running jobs go on and write into the buffer; when the store is back, every event is there once, in order."""
    registry = Registry()
    gone, back = asyncio.Event(), asyncio.Event()

    @job("steady", registry=registry)
    async def steady(ctx: JobContext) -> int:
        await ctx.output(0)
        await ctx.flush()
        gone.set()
        for n in range(1, 51):
            await ctx.output(n)
        await back.wait()
        await ctx.output(51)
        return ctx.attempt

    @job("finished.meanwhile", registry=registry)
    def finished(ctx: SyncJobContext) -> str:
        ctx.output("before")
        ctx.flush()
        assert done.wait(scaled(20))
        ctx.output("while away")
        return "kept"

    done = threading.Event()
    async with (
        open_jobs(private_valkey.url, keyspace, registry) as jobs,
        running_worker(private_valkey.url, keyspace, registry, tmp_path, lease_s=2),
    ):
        first, second = await jobs.submit(steady), await jobs.submit(finished)
        await gone.wait()
        await jobs.until_kind(second, "output")
        await _kill(private_valkey, jobs)
        done.set()
        await asyncio.sleep(LEASE_S)  # an outage has a length; there is no signal for it
        private_valkey.start()  # from the main thread, to which it is tied
        back.set()
        one, two = await jobs.until(first, timeout_s=20), await jobs.until(second, timeout_s=20)
        assert (one.state, one.result) == (JobState.COMPLETED, b"1")
        assert (two.state, two.result) == (JobState.COMPLETED, b'"kept"')
        assert [e["data"]["chunk"] for e in await jobs.events(first, "output")] == list(range(52))
        assert [e["data"]["chunk"] for e in await jobs.events(second, "output")] == ["before", "while away"]
        assert len({e["epoch"] for e in await jobs.events(first)}) == 2


async def test_full_buffer_makes_the_job_wait_until_the_store_is_back(
    private_valkey: EmbeddedValkey, keyspace: Keyspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store is away a job's buffer fills up to its bound, then the job waits; nothing is dropped."""
    registry = Registry()
    started, away = asyncio.Event(), asyncio.Event()
    sent = 0

    @job("chatty", registry=registry)
    async def chatty(ctx: JobContext) -> None:
        nonlocal sent
        started.set()
        await away.wait()
        for n in range(1500):
            await ctx.output(n)
            sent = n + 1

    async with (
        open_jobs(private_valkey.url, keyspace, registry) as jobs,
        running_worker(private_valkey.url, keyspace, registry, tmp_path),
    ):
        job_id = await jobs.submit(chatty)
        await started.wait()
        await _kill(private_valkey, jobs)
        away.set()
        seen = -1
        while sent != seen:  # until it stands still
            seen = sent
            await asyncio.sleep(0.2)
        assert 990 <= sent <= 1001
        private_valkey.start()  # from the main thread, to which it is tied
        assert (await jobs.until(job_id, timeout_s=20)).state is JobState.COMPLETED
        assert [e["data"]["chunk"] for e in await jobs.events(job_id, "output")] == list(range(1500))


async def _with_store(url: str, keyspace: Keyspace, work: Callable[[Store], Awaitable[None]]) -> None:
    store = Store(url, keyspace)
    try:
        await work(store)
    finally:
        await store.aclose()


async def _kill(valkey: EmbeddedValkey, jobs: Jobs) -> None:
    """Kill the store once its append-only file is written, which a slow disk delays; what the kernel has survives."""

    async def is_written() -> bool:
        found = await jobs.store._redis.info("persistence")
        return bool(found["aof_buffer_length"] == 0)

    await eventually(is_written)
    valkey.kill()


def test_a_stopped_process_says_that_it_stood_still(
    valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """Its processor taken away for longer than a lease, as on Cloud Run between requests: told in the log and counted."""
    environ = worker_environ(
        valkey_url, keyspace, tmp_path, lease_s=LEASE_S, worker_port=0, log_format="json"
    ) | {"K_SERVICE": "web"}  # fmt: skip
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tidings", "worker", "tidings_tasks.demo", "--ready-fd", str(write_end)],
        env=environ, pass_fds=[write_end], stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(write_end)
    try:
        with os.fdopen(read_end, "rb") as ready:
            assert ready.readline() == b"\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(LEASE_S * 1.5)  # the length of the stall is what is tested
        process.send_signal(signal.SIGCONT)
        assert process.stderr is not None
        told = next(line for line in process.stderr if b"stood still" in line)
        assert b"worker pool" in told
    finally:
        process.terminate()
        process.communicate(timeout=scaled(20))
