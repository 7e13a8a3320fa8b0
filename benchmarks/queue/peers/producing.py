"""The modes of `benchmarks.queue.producer` for the peers in Python, over what each has to send with."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.queue import probe

__all__ = ["produce_async", "produce_blocking"]

_CONCURRENT, _BATCH, _PACE_S = 1_000, 500, 0.1
_THREADS = 16
"""Of a producer that blocks: more of them only wait for the interpreter."""

_Data = dict[str, Any]


def _report(began: float, began_cpu_s: float) -> None:
    print(
        json.dumps({"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - began_cpu_s}),
        flush=True,
    )


def _batches(count: int, size: int) -> list[list[_Data]]:
    return [[{"n": n} for n in range(first, min(first + size, count))] for first in range(0, count, size)]


def produce_blocking(
    *,
    connect: Callable[[], object],
    send: Callable[[str, _Data], object],
    send_many: Callable[[str, Sequence[_Data]], object] | None = None,
) -> None:
    """Submit as the command line says: MODE JOB COUNT."""
    mode, job, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    connect()
    began, began_cpu_s = time.perf_counter(), time.process_time()
    if mode == "one" or (mode == "batch" and send_many is None):
        for n in range(count):
            send(job, {"n": n})
    elif mode == "concurrent":
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(lambda n: send(job, {"n": n}), range(count), chunksize=50):
                pass
    elif mode == "batch" and send_many is not None:
        for batch in _batches(count, _BATCH):
            send_many(job, batch)
    else:
        for n in range(count):
            time.sleep(max(0.0, began + n * _PACE_S - time.perf_counter()))
            send(job, {"sent_ms": probe.now_ms()})
    _report(began, began_cpu_s)


async def produce_async(send: Callable[[str, _Data], Awaitable[object]]) -> None:
    """Submit as the command line says: MODE JOB COUNT. Neither arq nor taskiq sends many in one call."""
    mode, job, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    began, began_cpu_s = time.perf_counter(), time.process_time()
    if mode == "one":
        for n in range(count):
            await send(job, {"n": n})
    elif mode in ("concurrent", "batch"):
        for batch in _batches(count, _CONCURRENT):
            await asyncio.gather(*(send(job, data) for data in batch))
    else:
        for n in range(count):
            await asyncio.sleep(began + n * _PACE_S - time.perf_counter())
            await send(job, {"sent_ms": probe.now_ms()})
    _report(began, began_cpu_s)
