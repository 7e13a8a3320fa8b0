"""What ``docs/dramatiq.md`` says about the two workers: what the stock ``dramatiq`` command lacks, and what holds all the same."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from tests.integration.running import Jobs, open_jobs
from tests.integration.worker_processes import dramatiq_process, worker_environ, worker_process
from tests.support.timing import eventually, scaled
from tidings.protocol import JobState
from tidings_tasks import JobContext, job
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.registry import Registry
from tidings_tasks.store import Keyspace
from tidings_tasks.store.worker_commands import list_workers

pytestmark = pytest.mark.acceptance


@dataclass(frozen=True)
class Worker:
    """A worker process under way."""

    is_stock: bool
    keyspace: Keyspace


MODULE = """
import asyncio, os, threading, time
import dramatiq
from pydantic import BaseModel
from tidings_tasks import JobCancelled, JobContext, SyncJobContext, job, on_started
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
    global most
    told, most = most, 0
    return {"most": told, "hooked": len(hooked), "pid": os.getpid()}

@job("apart", process=True, max_attempts=1)
def apart(ctx: SyncJobContext, input: Nothing) -> int:
    return os.getpid()

@job("sleeps", max_attempts=1)
async def sleeps(ctx: JobContext, input: Nothing) -> None:
    await ctx.output("begun")
    try:
        await asyncio.sleep(3600)
    except JobCancelled:
        await ctx.log("info", "told")
        raise
"""


class Nothing(BaseModel):
    pass


@pytest.fixture(scope="module", params=["stock", "ours"])
def worker(
    request: pytest.FixtureRequest, valkey_server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    """Run either worker for all tests, with room for four jobs on threads."""
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "shop.py").write_text(MODULE)
    keyspace = Keyspace(prefix=f"t{secrets.token_hex(6)}")
    environ = worker_environ(
        valkey_server.url, keyspace, directory, lease_s=1, queues=json.dumps({"reports": {"max_running": 1}})
    )
    started = (
        dramatiq_process("shop", "--threads", "4", environ=environ, cwd=directory)
        if request.param == "stock"
        else worker_process("shop", environ=environ, cwd=directory)
    )
    with started:
        yield Worker(request.param == "stock", keyspace)


@pytest.fixture
async def jobs(worker: Worker, valkey_url: str) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, worker.keyspace, Registry()) as found:
        yield found


async def submit(jobs: Jobs, name: str, count: int = 1, queue: str = "default", **options: Any) -> list[str]:
    @job(name, queue=queue, max_attempts=1, registry=Registry())
    async def declared(ctx: JobContext, input: Nothing) -> None: ...

    return [await jobs.submit(declared, {}, **options) for _ in range(count)]


async def run_all(jobs: Jobs, name: str, count: int = 1, queue: str = "default") -> list[Any]:
    """Run so many jobs to their end, which must be a good one, and return their results."""
    results = []
    for job_id in await submit(jobs, name, count, queue):
        record = await jobs.until(job_id, timeout_s=30)
        assert record.state is JobState.COMPLETED, record
        results.append(orjson.loads(record.result or b"null"))
    return results


async def test_async_jobs_hold_a_thread_under_the_stock_command(worker: Worker, jobs: Jobs) -> None:
    """``--threads`` bounds them there; here only the slots do."""
    await run_all(jobs, "waits", 16)
    (told,) = await run_all(jobs, "tells")
    least, most = (2, 4) if worker.is_stock else (6, 10)
    assert least <= told["most"] <= most


async def test_the_stock_command_has_no_process_pool(worker: Worker, jobs: Jobs) -> None:
    """``process=True`` runs on a thread of the worker's own process there."""
    (pid,), (told,) = await run_all(jobs, "apart"), await run_all(jobs, "tells")
    assert (pid == told["pid"]) is worker.is_stock


async def test_the_stock_command_calls_no_hooks(worker: Worker, jobs: Jobs) -> None:
    """Dramatiq's middleware is what it has instead."""
    await run_all(jobs, "waits", 2)

    async def hooked() -> bool:
        (told,) = await run_all(jobs, "tells")
        return bool(told["hooked"])

    if worker.is_stock:
        assert not await hooked()
    else:
        await eventually(hooked, 20)


async def test_limits_in_the_store_hold_under_both(jobs: Jobs) -> None:
    """``max_running`` of a queue is enforced where jobs are claimed, so no worker can pass it."""
    await run_all(jobs, "tells")
    await run_all(jobs, "narrow", 6, queue="reports")
    (told,) = await run_all(jobs, "tells")
    assert told["most"] == 1


async def test_an_async_job_is_cancelled_at_its_await_under_both(jobs: Jobs) -> None:
    """It makes no call of its context meanwhile, and learns why, with time to clean up."""
    (job_id,) = await submit(jobs, "sleeps")
    await jobs.until_kind(job_id, "output", timeout_s=30)
    await jobs.cancel(job_id)
    assert (await jobs.until(job_id)).state is JobState.CANCELLED
    assert [event["data"]["message"] for event in await jobs.events(job_id, "log")] == ["told"]


async def test_both_are_seen_among_the_workers(worker: Worker, jobs: Jobs) -> None:
    """With their queues, jobs and memory."""

    async def beats() -> Any:
        return await jobs.store.run(list_workers())

    (found,) = await eventually(beats)
    assert found.runtime == ("dramatiq" if worker.is_stock else "tidings")
    assert "default" in found.queues
    assert found.rss_bytes > 1_000_000


async def test_a_delayed_job_begins_when_it_is_due_under_both(jobs: Jobs) -> None:
    """An idle worker does not wait for its next look."""
    await run_all(jobs, "tells")
    late_s = []
    for _ in range(3):
        (job_id,) = await submit(jobs, "tells", delay_s=0.4)
        await jobs.until(job_id)
        queued, started = await jobs.events(job_id, "queued"), await jobs.events(job_id, "started")
        due = datetime.fromisoformat((await jobs.events(job_id, "scheduled"))[0]["data"]["run_at"])
        assert queued
        late_s.append((datetime.fromisoformat(started[0]["at"]) - due).total_seconds())
    assert min(late_s) < scaled(0.2), late_s
