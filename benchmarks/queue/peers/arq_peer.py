"""arq: coroutines on one loop; it looks for jobs at a fixed distance in time, which is left as it is."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any, ClassVar

from arq import create_pool, run_worker
from arq.connections import RedisSettings

from benchmarks.queue import probe

from .producing import produce_async

_settings = RedisSettings(unix_socket_path=os.environ["BENCH_SOCKET"])


async def noop(_: dict[str, Any], n: int) -> None:
    """Do nothing."""
    probe.begin()
    probe.end()


async def pickup(_: dict[str, Any], sent_ms: float) -> None:
    """Note how late it begins."""
    probe.pick_up(sent_ms)


class WorkerSettings:
    """What arq reads."""

    functions: ClassVar = [noop, pickup]
    redis_settings = _settings
    max_jobs = int(os.environ["BENCH_CONCURRENCY"])


async def _produce() -> None:
    pool = await create_pool(_settings)
    await produce_async(lambda job, data: pool.enqueue_job(job, **data))
    await pool.aclose()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        logging.disable(logging.WARNING)
        asyncio.set_event_loop(asyncio.new_event_loop())
        run_worker(WorkerSettings)  # type: ignore[arg-type]
    else:
        asyncio.run(_produce())
