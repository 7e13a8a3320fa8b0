"""A module of plain actors and job types under both workers: the stock ``dramatiq`` command, and ours."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import psutil
import pytest
from pydantic import BaseModel

from tests.integration.running import Jobs, open_jobs
from tests.integration.worker_processes import dramatiq_process, end_process, worker_environ, worker_process
from tests.support.timing import eventually, scaled
from tidings.protocol import JobState
from tidings_tasks import JobContext, job
from tidings_tasks.queue.broker import TidingsBroker
from tidings_tasks.registry import Registry
from tidings_tasks.store import Keyspace, Tenant, commands

MODULE = """
import asyncio, logging, os, signal, time
import dramatiq
from pydantic import BaseModel
from tidings_tasks import JobContext, SyncJobContext, current_job, job
from tidings_tasks.queue.broker import TidingsBroker
from tidings_tasks.settings import load_settings

dramatiq.set_broker(TidingsBroker(load_settings()))

@dramatiq.actor
def add(a, b):
    current_job().progress(50, "adding")
    logging.getLogger("adding").info("a is %d", a)
    return a + b

@dramatiq.actor
async def add_async(a, b):
    await current_job().progress(50, "adding")
    await asyncio.sleep(0.01)
    return a + b

@dramatiq.actor
def double(n):
    return n * 2

@dramatiq.actor(max_retries=2, min_backoff=10, max_backoff=20)
def flaky():
    if current_job().attempt < 3:
        raise RuntimeError("not yet")
    return "third"

@dramatiq.actor(time_limit=300, max_retries=0)
def slow():
    for _ in range(500):
        time.sleep(0.01)

@dramatiq.actor(max_retries=0)
def crash():
    current_job().output("started")
    current_job().flush()
    if current_job().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return current_job().attempt

@dramatiq.actor(max_retries=0)
def watched():
    for _ in range(500):
        current_job().output("still here")
        time.sleep(0.02)

@dramatiq.actor(max_retries=0, notify_shutdown=True)
def told():
    current_job().output("begun")
    current_job().flush()
    for _ in range(3000):
        time.sleep(0.01)

@dramatiq.actor(max_retries=0)
def asks():
    current_job().output("begun")
    current_job().flush()
    while not current_job().shutting_down:
        time.sleep(0.01)
    return "saw it"

@dramatiq.actor(max_retries=0)
def deaf(path):
    current_job().output("begun")
    current_job().flush()
    while not os.path.exists(path):
        time.sleep(0.01)

@dramatiq.actor(max_retries=0)
def quick():
    return "done"

class Rows(BaseModel):
    rows: int

@job("typed", queue="reports", max_attempts=1)
async def typed(ctx: JobContext, input: Rows) -> dict[str, int]:
    async for _ in ctx.track(range(input.rows)):
        pass
    return {"rows": input.rows}

@job("typed.sync", max_attempts=1)
def typed_sync(ctx: SyncJobContext, input: Rows) -> dict[str, int]:
    for _ in ctx.track(range(input.rows)):
        pass
    return {"rows": input.rows}
"""

LEASE_S = 1


class Rows(BaseModel):
    rows: int


@pytest.fixture
def environ(valkey_url: str, keyspace: Keyspace, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "shop.py").write_text(MODULE)
    return worker_environ(valkey_url, keyspace, tmp_path, lease_s=LEASE_S)


@pytest.fixture
def broker(valkey_url: str, keyspace: Keyspace) -> Iterator[TidingsBroker]:
    made = TidingsBroker(valkey_url, keyspace=keyspace)
    yield made
    made.close()


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, keyspace, Registry()) as found:
        yield found


def send(broker: TidingsBroker, actor: str, *args: Any, **options: Any) -> str:
    return broker.enqueue(dramatiq.Message("default", actor, args, {}, options)).message_id


@pytest.mark.acceptance
@pytest.mark.parametrize("kind", ["stock", "ours"])
async def test_one_module_runs_the_same_under_both_workers(
    kind: str, environ: dict[str, str], broker: TidingsBroker, jobs: Jobs, tmp_path: Path
) -> None:
    """Actors and job types, sync and async: results, progress, logs, retries, time limits, pipelines, cancellation."""

    started = dramatiq_process("shop", environ=environ, cwd=tmp_path) if kind == "stock" else worker_process(
        "shop", environ=environ, cwd=tmp_path
    )  # fmt: skip
    with started:
        added, added_async = send(broker, "add", 1, 2), send(broker, "add_async", 3, 4)
        flaky = send(broker, "flaky", max_retries=2, min_backoff=10, max_backoff=20)
        slow = send(broker, "slow", time_limit=300, max_retries=0)
        watched = send(broker, "watched", max_retries=0)
        piped = dramatiq.Message("default", "double", (), {}, {}).asdict()
        send(broker, "add", 5, 6, pipe_target=piped, owner="bob")
        typed, typed_sync = (
            await submit_typed(jobs, "typed", "reports"),
            await submit_typed(jobs, "typed.sync", "default"),
        )

        assert (await jobs.until(added, timeout_s=30)).result == b"3"
        assert [e["data"]["message"] for e in await jobs.events(added, "log")] == ["a is 1"]
        assert (await jobs.until(added_async)).result == b"7"
        for job_id in (added, added_async):
            assert [e["data"]["message"] for e in await jobs.events(job_id, "progress")] == ["adding"]
        for job_id in (typed, typed_sync):
            assert (await jobs.until(job_id)).result == b'{"rows":3}'
            assert (await jobs.events(job_id, "progress"))[-1]["data"]["percent"] == 100
        third = await jobs.until(flaky)
        assert (third.result, third.attempt, third.tries) == (b'"third"', 3, 2)
        late = await jobs.until(slow)
        assert late.state is JobState.FAILED
        assert late.error is not None
        assert b'"code":"timeout"' in late.error
        await jobs.until_kind(watched, "output")
        await jobs.cancel(watched)
        assert (await jobs.until(watched)).state is JobState.CANCELLED

        async def doubled() -> bool:
            found = await jobs.store.run(commands.list_jobs(0, Tenant("bob")))
            return any(record.spec.type == "double" and record.result == b"22" for record in found)

        assert await eventually(doubled)


async def submit_typed(jobs: Jobs, name: str, queue: str) -> str:
    @job(name, queue=queue, max_attempts=1, registry=Registry())
    async def typed(ctx: JobContext, input: Rows) -> None: ...

    return await jobs.submit(typed, {"rows": 3})


@pytest.mark.acceptance
async def test_killed_stock_worker_loses_no_job(
    environ: dict[str, str], broker: TidingsBroker, jobs: Jobs, tmp_path: Path
) -> None:
    """SIGKILL of the stock worker's process mid-job: the lease lapses, and the job runs again."""
    with dramatiq_process("shop", environ=environ, cwd=tmp_path):
        job_id = send(broker, "crash", max_retries=1)
        await jobs.until_kind(job_id, "output", timeout_s=30)
    with dramatiq_process("shop", environ=environ, cwd=tmp_path):
        record = await jobs.until(job_id, timeout_s=30)
    assert (record.state, record.result, record.tries) == (JobState.COMPLETED, b"2", 1)
    (retrying,) = await jobs.events(job_id, "retrying")
    assert retrying["data"]["error"]["code"] == "worker_lost"


@pytest.mark.acceptance
async def test_stock_worker_writes_its_outcomes_before_it_ends(
    environ: dict[str, str], broker: TidingsBroker, jobs: Jobs, tmp_path: Path
) -> None:
    """SIGTERM: what was acknowledged is stored, what was prefetched is handed back, the exit status is 0."""
    with dramatiq_process("shop", environ=environ, cwd=tmp_path) as process:
        ids = [send(broker, "slow", time_limit=300, max_retries=0) for _ in range(40)]

        async def begun() -> bool:
            return any([(await jobs.read(job_id)).state is JobState.RUNNING for job_id in ids])

        await eventually(begun, 30)
        assert await asyncio.to_thread(end_process, process) == 0
        assert not [
            child
            for child in psutil.Process().children(recursive=True)
            if "dramatiq" in " ".join(child.cmdline())
        ]
        states = [(await jobs.read(job_id)).state for job_id in ids]
    assert JobState.RUNNING not in states
    assert JobState.QUEUED in states


@pytest.mark.acceptance
async def test_stock_worker_hands_running_jobs_back(
    environ: dict[str, str], broker: TidingsBroker, jobs: Jobs, tmp_path: Path
) -> None:
    """SIGTERM: after the grace the context hands back, ``notify_shutdown`` at once, and no try is burnt."""
    environ["TIDINGS_SHUTDOWN_GRACE_S"] = "0.5"
    with dramatiq_process("shop", "--threads", "3", environ=environ, cwd=tmp_path) as process:
        ids = {name: send(broker, name, max_retries=0) for name in ("watched", "told", "asks")}
        for job_id in ids.values():
            await jobs.until_kind(job_id, "output", timeout_s=30)
        assert await asyncio.to_thread(end_process, process) == 0
    for name in ("watched", "told"):
        record = await jobs.read(ids[name])
        assert (record.state, record.tries, record.attempt) == (JobState.QUEUED, 0, 1), name
        assert (await jobs.events(ids[name], "queued"))[-1]["data"]["reason"] == "shutdown"
    assert (await jobs.read(ids["asks"])).result == b'"saw it"'


@pytest.mark.acceptance
async def test_stock_worker_claims_nothing_more_while_an_actor_ends(
    environ: dict[str, str], broker: TidingsBroker, jobs: Jobs, tmp_path: Path
) -> None:
    """SIGTERM: an actor that cannot be told is waited for; what was fetched for after it goes back at once."""
    gate = tmp_path / "gate"
    with dramatiq_process("shop", "--threads", "1", environ=environ, cwd=tmp_path) as process:
        running = send(broker, "deaf", str(gate), max_retries=0)
        await jobs.until_kind(running, "output", timeout_s=30)
        fetched = [send(broker, "quick") for _ in range(6)]

        async def claimed() -> bool:
            return any([(await jobs.read(job_id)).attempt for job_id in fetched])

        await eventually(claimed)
        process.send_signal(signal.SIGTERM)

        async def handed_back() -> bool:
            records = [await jobs.read(job_id) for job_id in fetched]
            return all(record.state is JobState.QUEUED for record in records)

        await eventually(handed_back)
        late = send(broker, "quick")
        assert (await jobs.read(running)).state is JobState.RUNNING
        gate.touch()
        # No second signal: at that one Dramatiq kills its workers.
        assert await asyncio.to_thread(process.wait, scaled(20)) == 0
    assert (await jobs.read(running)).state is JobState.COMPLETED
    records = [await jobs.read(job_id) for job_id in [*fetched, late]]
    assert {(record.state, record.tries) for record in records} == {(JobState.QUEUED, 0)}
