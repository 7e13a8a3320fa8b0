"""taskiq on Redis streams, the broker of taskiq-redis that acknowledges; one worker process, results kept."""

from __future__ import annotations

import asyncio
import os
import sys

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.queue import probe

from .producing import produce_async

_URL = os.environ["BENCH_URL"]
_CONCURRENCY = int(os.environ["BENCH_CONCURRENCY"])

broker = RedisStreamBroker(_URL).with_result_backend(RedisAsyncResultBackend(_URL))


@broker.task(task_name="noop")
async def noop(n: int) -> None:
    """Do nothing."""
    probe.begin()
    probe.end()


@broker.task(task_name="pickup")
async def pickup(sent_ms: float) -> None:
    """Note how late it begins."""
    probe.pick_up(sent_ms)


async def _produce() -> None:
    await broker.startup()
    tasks = {"noop": noop, "pickup": pickup}
    await produce_async(lambda job, data: tasks[job].kiq(**data))
    await broker.shutdown()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        command = [
            "taskiq", "worker", "benchmarks.queue.peers.taskiq_peer:broker", "--workers", "1", "--log-level", "ERROR",
            "--max-async-tasks", str(_CONCURRENCY), "--max-prefetch", str(_CONCURRENCY),
        ]  # fmt: skip
        os.execv(sys.executable, [sys.executable, "-m", *command])
    asyncio.run(_produce())
