"""A worker's health port, and its end when it is worn: real processes, as a platform runs them."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.running import Jobs, open_jobs, running_worker
from tests.integration.worker_processes import worker_environ, worker_process
from tests.support.timing import eventually, scaled
from tidings.protocol import JobState
from tidings_tasks import JobContext, demo, job
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.registry import REGISTRY, Registry
from tidings_tasks.store import Keyspace
from tidings_tasks.worker import condition
from tidings_tasks.worker.leases import LeaseKeeper


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, keyspace, REGISTRY) as found:
        yield found


async def ask(port: int, path: str, timeout_s: float = 10) -> tuple[int, Any]:
    """Ask a worker; status 0: no answer."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        try:
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                is_json = answer.content_type == "application/json"
                return answer.status, await (answer.json() if is_json else answer.text())
        except (aiohttp.ClientError, TimeoutError):
            return 0, None


async def test_a_platforms_port_tells_how_the_worker_does(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, tmp_path: Path, unused_tcp_port: int
) -> None:
    """``PORT``, as Cloud Run gives it: live, ready, the numbers and the metrics."""
    port = unused_tcp_port
    environ = worker_environ(valkey_url, keyspace, tmp_path) | {"PORT": str(port), "WORKER_ID": "w9"}
    with worker_process("tidings_tasks.demo", environ=environ):
        await jobs.until(await jobs.submit(demo.steps, {"steps": 2}))
        for path in ("/health", "/health/live", "/health/ready"):
            assert await ask(port, path) == (200, {"status": "ok", "reasons": []})
        status, facts = await ask(port, "/health/detailed")
        assert status == 200
        assert (facts["worker"], facts["done"], facts["running"], facts["profile"]) == ("w9", 1, 0, "all")
        assert facts["rss_bytes"] > 1_000_000
        assert "default" in facts["queues"]
        _, text = await ask(port, "/metrics")
        for name in ("job_seconds_count", "job_cpu_seconds_count", "job_memory_peak_bytes_count"):
            assert f'tidings_worker_{name}{{type="demo.steps"}} 1.0' in text


async def test_a_worker_without_its_store_is_live_but_not_ready(
    private_valkey: EmbeddedValkey, keyspace: Keyspace, tmp_path: Path, unused_tcp_port: int
) -> None:
    """A restart would not bring the store back."""
    port = unused_tcp_port
    environ = worker_environ(private_valkey.url, keyspace, tmp_path, worker_port=port)
    with worker_process("tidings_tasks.demo", environ=environ):

        async def has_status(status: int) -> bool:
            return (await ask(port, "/health/ready"))[0] == status

        await eventually(lambda: has_status(200))
        private_valkey.kill()
        await eventually(lambda: has_status(503), 30)
        assert (await ask(port, "/health/ready"))[1]["reasons"] == ["store_unavailable"]
        assert (await ask(port, "/health/live"))[0] == 200
        private_valkey.start()
        await eventually(lambda: has_status(200), 30)


async def test_a_worker_that_cannot_renew_its_leases_is_not_live(
    valkey_url: str,
    keyspace: Keyspace,
    tmp_path: Path,
    unused_tcp_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though the store is there: only a restart helps."""
    registry = Registry()

    @job("waits", registry=registry)
    async def waits(ctx: JobContext) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(condition, "_LONG_S", 0.2)
    monkeypatch.setattr(condition, "_LONG_LEASES", 0)
    settings = {"worker_port": unused_tcp_port, "lease_s": 0.5, "shutdown_grace_s": 0}
    async with (
        open_jobs(valkey_url, keyspace, registry) as jobs,
        running_worker(valkey_url, keyspace, registry, tmp_path, **settings),
    ):
        await jobs.until(await jobs.submit(waits), JobState.RUNNING)
        monkeypatch.setattr(LeaseKeeper, "_renew", lambda *_: False)

        async def is_dead() -> bool:
            return (await ask(unused_tcp_port, "/health/live"))[0] == 503

        await eventually(is_dead)
        assert (await ask(unused_tcp_port, "/health/live"))[1]["reasons"] == ["leases_not_renewed"]


async def test_a_worker_whose_loop_is_stuck_does_not_answer(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, tmp_path: Path, unused_tcp_port: int
) -> None:
    """A probe with a time limit, as every platform's, sees it."""
    (tmp_path / "blocking.py").write_text(
        "import time\n"
        "from tidings_tasks import JobContext, job\n"
        "@job('blocks')\n"
        "async def blocks(ctx: JobContext) -> None:\n"
        "    await ctx.output('started')\n"
        "    await ctx.flush()\n"
        "    time.sleep(3600)\n"
    )
    registry = Registry()

    @job("blocks", registry=registry)
    async def blocks(ctx: JobContext) -> None: ...

    port = unused_tcp_port
    environ = worker_environ(valkey_url, keyspace, tmp_path, worker_port=port)
    with worker_process("blocking", environ=environ, cwd=tmp_path) as process:
        assert (await ask(port, "/health/live"))[0] == 200
        job_id = await Jobs(jobs.store, registry).submit(blocks)
        await jobs.until_kind(job_id, "output")
        assert (await ask(port, "/health/live", timeout_s=0.5))[0] == 0
        process.kill()


def test_a_port_in_use_is_told_with_the_fix(valkey_url: str, keyspace: Keyspace, tmp_path: Path) -> None:
    """Status 2: a restart would not mend it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "tidings", "worker", "tidings_tasks.demo"],
            env=worker_environ(valkey_url, keyspace, tmp_path) | {"PORT": port},
            capture_output=True, text=True, timeout=scaled(60), check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert f"TIDINGS_WORKER_PORT: port {port} on 127.0.0.1 is in use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("limit", ["jobs", "memory"])
async def test_a_worn_worker_ends_gracefully(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, tmp_path: Path, limit: str
) -> None:
    """After so many jobs or MiB: status 0, running jobs end or go back without a try, and the next worker goes on."""
    limits: dict[str, Any] = {"worker_recycle_jobs": 3} if limit == "jobs" else {"worker_recycle_rss_mib": 64}
    environ = worker_environ(valkey_url, keyspace, tmp_path, shutdown_grace_s=1, **limits)
    (tmp_path / "growing.py").write_text(
        "import asyncio\n"
        "from tidings_tasks import JobContext, job\n"
        "kept = []\n"
        "@job('grows')\n"
        "async def grows(ctx: JobContext) -> None:\n"
        "    kept.append(bytes(bytearray(b'x') * 100_000_000))\n"
        "@job('stays')\n"
        "async def stays(ctx: JobContext) -> None:\n"
        "    await asyncio.sleep(3600)\n"
    )
    registry = Registry()

    @job("grows", registry=registry)
    async def grows(ctx: JobContext) -> None: ...

    @job("stays", registry=registry)
    async def stays(ctx: JobContext) -> None: ...

    mine = Jobs(jobs.store, registry)
    with worker_process("growing", environ=environ, cwd=tmp_path) as process:
        running = await mine.submit(stays)
        for _ in range(3 if limit == "jobs" else 1):
            await mine.submit(grows)
        assert await asyncio.to_thread(process.wait, scaled(20)) == 0
    record = await mine.read(running)
    assert (record.state, record.tries) == (JobState.QUEUED, 0)
