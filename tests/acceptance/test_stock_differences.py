"""What ``docs/dramatiq.md`` says about the two workers: what the stock ``dramatiq`` command lacks, and what holds all the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
from pydantic import BaseModel

from tests.integration.running import Jobs, open_jobs
from tests.integration.worker_processes import dramatiq_process, worker_environ, worker_process
from tests.support.timing import eventually
from tidings.protocol import JobState
from tidings_tasks import JobContext, job
from tidings_tasks.registry import Registry
from tidings_tasks.store import Keyspace
from tidings_tasks.store.worker_commands import list_workers

pytestmark = pytest.mark.acceptance

Kind = Literal["stock", "ours"]

MODULE = """
import asyncio, os, threading, time
import dramatiq
from pydantic import BaseModel
from tidings_tasks import JobContext, SyncJobContext, job, on_started
from tidings_tasks.queue.broker import TidingsBroker
from tidings_tasks.settings import load_settings

dramatiq.set_broker(TidingsBroker(load_settings()))

class Nothing(BaseModel):
    pass

hooked = []

@on_started
def note(info):
    hooked.append(info.id)

at_once = most = 0
lock = threading.Lock()

def enter():
    global at_once, most
    with lock:
        at_once += 1
        most = max(most, at_once)

def leave():
    global at_once
    with lock:
        at_once -= 1

@job("waits", max_attempts=1)
async def waits(ctx: JobContext, input: Nothing) -> None:
    enter()
    await asyncio.sleep(0.3)
    leave()

@job("narrow", queue="reports", max_attempts=1)
def narrow(ctx: SyncJobContext, input: Nothing) -> None:
    enter()
    time.sleep(0.1)
    leave()

@job("tells", max_attempts=1)
async def tells(ctx: JobContext, input: Nothing) -> dict:
    return {"most": most, "hooked": len(hooked), "pid": os.getpid(), "thread": threading.current_thread().name}

@job("apart", process=True, max_attempts=1)
def apart(ctx: SyncJobContext, input: Nothing) -> int:
    return os.getpid()

@job("sleeps", max_attempts=1)
async def sleeps(ctx: JobContext, input: Nothing) -> None:
    await ctx.output("begun")
    await asyncio.sleep(3600)
"""


class Nothing(BaseModel):
    pass


@pytest.fixture
def environ(valkey_url: str, keyspace: Keyspace, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "shop.py").write_text(MODULE)
    queues = json.dumps({"reports": {"max_running": 1}})
    return worker_environ(valkey_url, keyspace, tmp_path, lease_s=1, queues=queues)


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, keyspace, Registry()) as found:
        yield found


@contextmanager
def worker(kind: Kind, environ: dict[str, str], cwd: Path) -> Iterator[None]:
    """Run either worker, with room for four jobs on threads."""
    started = (
        dramatiq_process("shop", "--threads", "4", environ=environ, cwd=cwd)
        if kind == "stock"
        else worker_process("shop", environ=environ, cwd=cwd)
    )
    with started:
        yield


async def submit(jobs: Jobs, name: str, count: int = 1, queue: str = "default") -> list[str]:
    @job(name, queue=queue, max_attempts=1, registry=Registry())
    async def declared(ctx: JobContext, input: Nothing) -> None: ...

    return [await jobs.submit(declared, {}) for _ in range(count)]


async def run_all(jobs: Jobs, name: str, count: int = 1, queue: str = "default") -> list[Any]:
    """Run so many jobs to their end, which must be a good one, and return their results."""
    results = []
    for job_id in await submit(jobs, name, count, queue):
        record = await jobs.until(job_id, timeout_s=30)
        assert record.state is JobState.COMPLETED, record
        results.append(orjson.loads(record.result or b"null"))
    return results


@pytest.mark.parametrize(("kind", "least", "most"), [("stock", 2, 4), ("ours", 6, 10)])
async def test_async_jobs_hold_a_thread_under_the_stock_command(
    kind: Kind, least: int, most: int, environ: dict[str, str], jobs: Jobs, tmp_path: Path
) -> None:
    """``--threads`` bounds them there; here only the slots do."""
    with worker(kind, environ, tmp_path):
        await run_all(jobs, "waits", 16)
        (told,) = await run_all(jobs, "tells")
    assert least <= told["most"] <= most


@pytest.mark.parametrize(("kind", "is_apart"), [("stock", False), ("ours", True)])
async def test_the_stock_command_has_no_process_pool(
    kind: Kind, is_apart: bool, environ: dict[str, str], jobs: Jobs, tmp_path: Path
) -> None:
    """``process=True`` runs on a thread of the worker's own process there."""
    with worker(kind, environ, tmp_path):
        (pid,), (told,) = await run_all(jobs, "apart"), await run_all(jobs, "tells")
    assert (pid != told["pid"]) is is_apart


@pytest.mark.parametrize(("kind", "calls"), [("stock", False), ("ours", True)])
async def test_the_stock_command_calls_no_hooks(
    kind: Kind, calls: bool, environ: dict[str, str], jobs: Jobs, tmp_path: Path
) -> None:
    """Dramatiq's middleware is what it has instead."""
    with worker(kind, environ, tmp_path):
        await run_all(jobs, "waits", 2)
        if calls:
            await eventually(lambda: _hooked(jobs), 20)
        else:
            assert not await _hooked(jobs)


async def _hooked(jobs: Jobs) -> bool:
    (told,) = await run_all(jobs, "tells")
    return bool(told["hooked"])


@pytest.mark.parametrize("kind", ["stock", "ours"])
async def test_limits_in_the_store_hold_under_both(
    kind: Kind, environ: dict[str, str], jobs: Jobs, tmp_path: Path
) -> None:
    """``max_running`` of a queue is enforced where jobs are claimed, so no worker can pass it."""
    with worker(kind, environ, tmp_path):
        await run_all(jobs, "narrow", 6, queue="reports")
        (told,) = await run_all(jobs, "tells")
    assert told["most"] == 1


@pytest.mark.parametrize("kind", ["stock", "ours"])
async def test_an_async_job_is_cancelled_at_its_await_under_both(
    kind: Kind, environ: dict[str, str], jobs: Jobs, tmp_path: Path
) -> None:
    """It makes no call of its context meanwhile."""
    with worker(kind, environ, tmp_path):
        (job_id,) = await submit(jobs, "sleeps")
        await jobs.until_kind(job_id, "output", timeout_s=30)
        await jobs.cancel(job_id)
        assert (await jobs.until(job_id)).state is JobState.CANCELLED


@pytest.mark.parametrize(("kind", "runtime"), [("stock", "dramatiq"), ("ours", "tidings")])
async def test_both_are_seen_among_the_workers(
    kind: Kind, runtime: str, environ: dict[str, str], jobs: Jobs, tmp_path: Path
) -> None:
    """With their queues, jobs and memory."""
    with worker(kind, environ, tmp_path):
        await run_all(jobs, "waits")

        async def beats() -> Any:
            return await jobs.store.run(list_workers())

        (found,) = await eventually(beats)
        assert found.runtime == runtime
        assert "default" in found.queues
        assert found.rss_bytes > 1_000_000
