"""Functions in the process pool: the same context, really stopped, and a death that harms nobody else."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import redis.asyncio

from tests.integration import process_jobs
from tests.integration.process_jobs import Wish
from tests.integration.running import Jobs, RunningWorker, open_jobs, running_worker
from tests.integration.test_worker_health import ask
from tests.integration.worker_processes import worker_environ, worker_process
from tests.support.timing import eventually, scaled
from tidings.protocol import JobState
from tidings_tasks import JobContext, job
from tidings_tasks.registry import REGISTRY, Registry
from tidings_tasks.store import Keyspace
from tidings_tasks.worker import crew, process_execution


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, keyspace, REGISTRY) as found:
        yield found


class Pool:
    """Starts a worker whose settings a test may change."""

    def __init__(self, url: str, keyspace: Keyspace, data_dir: Path) -> None:
        self._place = url, keyspace, data_dir

    def worker(self, **settings: Any) -> AbstractAsyncContextManager[RunningWorker]:
        url, keyspace, data_dir = self._place
        return running_worker(url, keyspace, REGISTRY, data_dir, **settings)


@pytest.fixture
def pool(valkey_url: str, keyspace: Keyspace, tmp_path: Path) -> Pool:
    return Pool(valkey_url, keyspace, tmp_path)


async def test_the_context_does_all_it_does_elsewhere(jobs: Jobs, pool: Pool) -> None:
    """Every call travels to the worker's outbox, in order; files, logging and the result too."""
    async with pool.worker():
        job_id = await jobs.submit(process_jobs.everything, Wish())
        record = await jobs.until(job_id, timeout_s=30)
    assert record.state is JobState.COMPLETED
    assert record.result is not None
    result = orjson.loads(record.result)
    assert result["pid"] != psutil.Process().pid
    assert (result["owner"], result["attempt"], result["file"]) == ("alice", 1, "out.txt")
    events = await jobs.events(job_id, "log", "output")
    said = [event["data"].get("message", event["data"].get("chunk")) for event in events]
    # What is written to a stream is joined for a while, so it may come behind what follows.
    assert sorted(said) == sorted(["hello", "text", "one two three", "from logging"])
    assert said[:2] == ["hello", "text"]
    assert record.progress is not None
    progress = orjson.loads(record.progress)
    assert (progress["percent"], progress["message"]) == (100.0, "tracking")


async def test_a_child_stays_warm_and_is_replaced_after_so_many_jobs(jobs: Jobs, pool: Pool) -> None:
    """Two jobs a process, one process at a time."""
    pids: list[bytes | None] = []
    async with pool.worker(worker_processes=1, worker_process_jobs=2):
        for _ in range(4):
            record = await jobs.until(await jobs.submit(process_jobs.pid, Wish()), timeout_s=30)
            pids.append(record.result)
    assert pids[0] == pids[1]
    assert pids[1] != pids[2]
    assert pids[2] == pids[3]


async def test_a_child_that_grew_is_replaced(jobs: Jobs, pool: Pool) -> None:
    """Any Python process is larger than the least limit."""
    async with pool.worker(worker_processes=1, worker_process_rss_mib=16):
        first, second = [
            (await jobs.until(await jobs.submit(process_jobs.pid, Wish()), timeout_s=30)).result
            for _ in range(2)
        ]
    assert first != second


async def test_the_pool_is_bounded(jobs: Jobs, pool: Pool) -> None:
    """Jobs wait for a free process."""
    async with pool.worker(worker_processes=2, worker_concurrency=6):
        ids = [await jobs.submit(process_jobs.pid, Wish()) for _ in range(6)]
        results = {(await jobs.until(job_id, timeout_s=30)).result for job_id in ids}
    assert len(results) <= 2


async def test_writes_keep_their_order_and_are_held_back(jobs: Jobs, pool: Pool) -> None:
    """Many more than may be on their way at once."""
    async with pool.worker():
        job_id = await jobs.submit(process_jobs.outputs, Wish(size=3000))
        await jobs.until(job_id, timeout_s=40)
    chunks = [event["data"]["chunk"] for event in await jobs.events(job_id, "output")]
    assert chunks == list(range(3000))


async def test_what_a_job_uses_is_its_process_alone(
    jobs: Jobs, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPU time and memory peak of this job, not of the one before in the same process."""
    used: list[Any] = []

    class Watching(crew.Tally):
        def count(self, attempt: Any, verb: Any) -> None:
            used.append(attempt.usage)

    monkeypatch.setattr("tidings_tasks.worker.runtime.Tally", Watching)
    async with pool.worker(worker_processes=1):
        for size in (200_000_000, 0):
            await jobs.until(await jobs.submit(process_jobs.memory, Wish(size=size)), timeout_s=30)
    large, small = used
    assert large.memory_peak_bytes > 200_000_000
    assert small.memory_peak_bytes < 200_000_000
    assert 0.005 < small.cpu_s < 5


@pytest.mark.parametrize("how", ["loop", "sleep", "c"])
async def test_a_time_out_really_stops_the_function(jobs: Jobs, pool: Pool, how: str) -> None:
    """Wherever it is: in Python it may clean up, in C it is killed with its process; others go on."""
    async with pool.worker(worker_processes=1):
        warm = await jobs.until(await jobs.submit(process_jobs.pid, Wish()), timeout_s=30)
        assert warm.result is not None
        began_at = time.monotonic()
        job_id = await jobs.submit(process_jobs.endless, Wish(how=how))
        record = await jobs.until(job_id, timeout_s=10)
        assert time.monotonic() - began_at < scaled(4)
        after = await jobs.until(await jobs.submit(process_jobs.pid, Wish()), timeout_s=30)
        assert not psutil.pid_exists(int(warm.result)) or after.result != warm.result
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert orjson.loads(record.error)["code"] == "timeout"
    assert len(await jobs.events(job_id, "log")) == (0 if how == "c" else 1)


async def test_a_cancelled_function_learns_it_at_its_next_call(jobs: Jobs, pool: Pool) -> None:
    """It may clean up, and the process lives on."""
    async with pool.worker():
        job_id = await jobs.submit(process_jobs.waits, Wish(how="listens"))
        await jobs.until_kind(job_id, "output", timeout_s=30)
        await jobs.cancel(job_id)
        assert (await jobs.until(job_id)).state is JobState.CANCELLED
    assert (await jobs.events(job_id, "log"))[-1]["data"]["message"] == "told"


async def test_a_function_may_ask_whether_it_is_cancelled(jobs: Jobs, pool: Pool) -> None:
    """``ctx.cancelled`` changes without a call."""
    async with pool.worker():
        job_id = await jobs.submit(process_jobs.waits, Wish(how="asks"))
        await jobs.until_kind(job_id, "output", timeout_s=30)
        await jobs.cancel(job_id)
        assert (await jobs.until(job_id)).result == b'"saw the cancellation"'


async def test_a_cancelled_function_that_does_not_listen_is_interrupted(
    jobs: Jobs, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded grace, where it sleeps."""
    monkeypatch.setattr(process_execution, "_CANCEL_GRACE_S", 0.05)
    async with pool.worker():
        job_id = await jobs.submit(process_jobs.waits, Wish(how="deaf"))
        await jobs.until_kind(job_id, "output", timeout_s=30)
        await jobs.cancel(job_id)
        assert (await jobs.until(job_id)).state is JobState.CANCELLED
    assert (await jobs.events(job_id, "log"))[-1]["data"]["message"] == "told"


@pytest.mark.parametrize(
    ("how", "words"), [("exit", "status 3"), ("segfault", "SIGSEGV"), ("kill", "memory"), ("forks", "memory")]
)
async def test_a_process_that_dies_fails_its_attempt_alone(
    jobs: Jobs, pool: Pool, how: str, words: str
) -> None:
    """It counts as a try, the job runs again, and the worker and its other jobs live."""
    registry = Registry()
    may_end = asyncio.Event()

    @job("neighbour", registry=registry)
    async def neighbour(ctx: JobContext) -> str:
        await may_end.wait()
        return "unharmed"

    REGISTRY.add(neighbour)
    async with pool.worker():
        other = await jobs.submit(neighbour)
        job_id = await jobs.submit(process_jobs.dies, Wish(how=how))
        record = await jobs.until(job_id, timeout_s=30)
        may_end.set()
        assert (await jobs.until(other)).result == b'"unharmed"'
    assert (record.state, record.result, record.tries) == (JobState.COMPLETED, b"2", 1)
    [retrying] = await jobs.events(job_id, "retrying")
    assert retrying["data"]["error"]["code"] == "process_died"
    assert words in retrying["data"]["error"]["message"]


async def test_a_job_that_always_kills_its_process_is_dead(jobs: Jobs, pool: Pool) -> None:
    """When no tries are left."""
    async with pool.worker():
        record = await jobs.until(await jobs.submit(process_jobs.dies, Wish(how="always")), timeout_s=40)
    assert (record.state, record.tries) == (JobState.FAILED, 2)
    assert record.error is not None
    assert orjson.loads(record.error)["code"] == "process_died"


async def test_jobs_that_wait_for_a_process_are_cancelled_and_handed_back_at_once(
    jobs: Jobs, pool: Pool
) -> None:
    """They have not begun; a try is not counted."""
    async with pool.worker(worker_processes=1, shutdown_grace_s=0) as worker:
        busy = await jobs.submit(process_jobs.waits, Wish(how="deaf"))
        await jobs.until_kind(busy, "output", timeout_s=30)
        first, second = [await jobs.submit(process_jobs.pid, Wish()) for _ in range(2)]
        for job_id in (first, second):
            await jobs.until(job_id, JobState.RUNNING)
        await jobs.cancel(first)
        assert (await jobs.until(first, timeout_s=3)).state is JobState.CANCELLED
        worker.stop.set()
        await worker.ended()
    record = await jobs.read(second)
    assert (record.state, record.tries) == (JobState.QUEUED, 0)


async def test_a_lost_lease_ends_the_process(jobs: Jobs, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zombie's function does not run on for ever beside the next attempt."""
    monkeypatch.setattr(process_execution, "_CANCEL_GRACE_S", 0.05)
    async with pool.worker(worker_processes=1):
        job_id = await jobs.submit(process_jobs.waits, Wish(how="deaf"))
        await jobs.until_kind(job_id, "output", timeout_s=30)
        [child] = [
            found for found in psutil.Process().children() if "worker.child" in " ".join(found.cmdline())
        ]
        raw = redis.asyncio.Redis.from_url(jobs.store.url)
        await raw.zrem(f"{jobs.store.keyspace.shard(0)}:lease", f"{job_id}:1")
        await raw.aclose()
        await eventually(lambda: not child.is_running() or child.status() == "zombie", 15)


async def test_a_function_sees_the_shutdown_and_may_end_in_time(jobs: Jobs, pool: Pool) -> None:
    """``ctx.shutting_down`` in a process."""
    async with pool.worker() as worker:
        job_id = await jobs.submit(process_jobs.waits, Wish(how="shutdown"))
        await jobs.until_kind(job_id, "output", timeout_s=30)
        worker.stop.set()
        await worker.ended()
    assert (await jobs.read(job_id)).result == b'"saw the shutdown"'


async def test_a_function_that_goes_on_is_handed_back(jobs: Jobs, pool: Pool) -> None:
    """No try is counted, and its process is gone with the worker (no test may leave one)."""
    async with pool.worker(shutdown_grace_s=0.1) as worker:
        job_id = await jobs.submit(process_jobs.waits, Wish(how="deaf"))
        await jobs.until_kind(job_id, "output", timeout_s=30)
        worker.stop.set()
        await worker.ended()
    record = await jobs.read(job_id)
    assert (record.state, record.tries) == (JobState.QUEUED, 0)


async def test_a_job_may_submit_another(jobs: Jobs, pool: Pool) -> None:
    """The child is connected to the worker's store."""
    async with pool.worker():
        record = await jobs.until(await jobs.submit(process_jobs.submits, Wish()), timeout_s=30)
        assert record.result is not None
        other = await jobs.until(orjson.loads(record.result), timeout_s=30)
    assert other.state is JobState.COMPLETED


async def test_children_die_with_a_killed_worker(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """SIGKILL leaves no orphan, whatever the child does."""
    environ = worker_environ(valkey_url, keyspace, tmp_path, lease_s=1)
    with worker_process("tests.integration.process_jobs", environ=environ) as process:
        job_id = await jobs.submit(process_jobs.waits, Wish(how="deaf"))
        await jobs.until_kind(job_id, "output", timeout_s=30)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.kill()
        await asyncio.to_thread(process.wait, 30)

        async def all_gone() -> bool:
            return not any(child.is_running() and child.status() != "zombie" for child in children)

        await eventually(all_gone, 5)


async def test_sigterm_hands_back_from_processes_and_threads_in_time(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, tmp_path: Path, unused_tcp_port: int
) -> None:
    """Real processes: exit 0 within the grace and two seconds, no try burnt, nothing claimed any more."""
    (tmp_path / "stubborn.py").write_text(
        "import asyncio, time\n"
        "from tidings_tasks import JobContext, SyncJobContext, job\n"
        "@job('stub.thread')\n"
        "def thread(ctx: SyncJobContext) -> None:\n"
        "    ctx.output('started')\n"
        "    time.sleep(3600)\n"
        "@job('stub.process', process=True)\n"
        "def process(ctx: SyncJobContext) -> None:\n"
        "    ctx.output('started')\n"
        "    time.sleep(3600)\n"
        "@job('stub.async')\n"
        "async def async_(ctx: JobContext) -> None:\n"
        "    await ctx.output('started')\n"
        "    while True:\n"
        "        try:\n"
        "            await asyncio.sleep(3600)\n"
        "        except asyncio.CancelledError:\n"
        "            pass\n"
    )
    registry = Registry()

    @job("stub.thread", registry=registry)
    async def thread(ctx: JobContext) -> None: ...

    @job("stub.process", registry=registry)
    async def process(ctx: JobContext) -> None: ...

    @job("stub.async", registry=registry)
    async def async_(ctx: JobContext) -> None: ...

    grace_s = 1.0
    environ = worker_environ(
        valkey_url, keyspace, tmp_path, shutdown_grace_s=grace_s, worker_port=unused_tcp_port
    )

    async def is_stopping() -> bool:
        _, found = await ask(unused_tcp_port, "/health/ready")
        return found is not None and "stopping" in found["reasons"]

    with worker_process("stubborn", environ=environ, cwd=tmp_path) as running:
        ids = [await Jobs(jobs.store, registry).submit(kind) for kind in (thread, process, async_)]
        for job_id in ids:
            await jobs.until_kind(job_id, "output", timeout_s=30)
        began_at = time.monotonic()
        running.send_signal(signal.SIGTERM)
        await eventually(is_stopping)
        late = await Jobs(jobs.store, registry).submit(thread)
        assert await asyncio.to_thread(_wait, running) == 0
        took_s = time.monotonic() - began_at
    for job_id in ids:
        record = await jobs.read(job_id)
        assert (record.state, record.tries) == (JobState.QUEUED, 0), record
    assert (await jobs.read(late)).attempt == 0
    assert grace_s <= took_s < scaled(grace_s + 2)


def _wait(process: subprocess.Popen[bytes]) -> int:
    return process.wait(scaled(20))
