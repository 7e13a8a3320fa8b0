"""Submits Tidings jobs as a server process does: `python -m benchmarks.queue.producer MODE JOB COUNT`.

Modes, which all producers have: ``one`` after the other, ``concurrent`` (1,000 at a time), ``batch`` (500 in a call),
``paced`` (one each 100 ms, with the time it was sent at). Prints the wall-clock and CPU seconds that it took as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

from tidings_server.intake import Intake
from tidings_tasks.store import Store, Submission, Tenant, commands
from tidings_tasks.submission import check_enqueued, prepare

from . import jobs, probe

CONCURRENT, BATCH, PACE_S = 1_000, 500, 0.1
OWNERS = 10

_JOBS = {"noop": jobs.noop, "buffered": jobs.buffered, "awaited": jobs.awaited, "pickup": jobs.pickup}
_TENANTS = [Tenant(f"user{number}", "bench") for number in range(OWNERS)]


class Producer:
    """Prepares and stores jobs of one type."""

    def __init__(self, store: Store, job: str) -> None:
        self._store = store
        self._intake = Intake(store)
        self._type = _JOBS[job]
        self._tenants = itertools.cycle(_TENANTS)

    async def one(self, count: int) -> None:
        """Each waits for the one before."""
        for number in range(count):
            await self._submit({"n": number})

    async def concurrent(self, count: int) -> None:
        """Requests of many callers, as they meet in a server."""
        for numbers in _chunks(count, CONCURRENT):
            await asyncio.gather(*(self._submit({"n": number}) for number in numbers))

    async def batch(self, count: int) -> None:
        """Many in one call."""
        for numbers in _chunks(count, BATCH):
            made = [self._prepare({"n": number})[1] for number in numbers]
            check_enqueued(await self._store.run(commands.enqueue(0, made)))

    async def paced(self, count: int) -> None:
        """One at a time, ten a second."""
        began = time.monotonic()
        for number in range(count):
            await asyncio.sleep(began + number * PACE_S - time.monotonic())
            await self._submit({"sent_ms": probe.now_ms()})

    async def aclose(self) -> None:
        """Store what waits."""
        await self._intake.aclose()

    def _prepare(self, data: dict[str, object]) -> tuple[int, Submission]:
        return prepare(self._type, next(self._tenants), self._store.keyspace, input=data)

    async def _submit(self, data: dict[str, object]) -> None:
        check_enqueued([await self._intake.submit(*self._prepare(data))])


def _chunks(count: int, size: int) -> Iterator[range]:
    return (range(first, min(first + size, count)) for first in range(0, count, size))


async def produce(mode: str, job: str, count: int) -> dict[str, float]:
    """Submit the jobs; returns the seconds and CPU seconds they took, with everything connected before."""
    store = Store(os.environ["BENCH_URL"])
    await store.run(commands.count_jobs(0, _TENANTS[0]))
    producer = Producer(store, job)
    modes: dict[str, Callable[[int], Awaitable[None]]] = {
        "one": producer.one, "concurrent": producer.concurrent, "batch": producer.batch, "paced": producer.paced,
    }  # fmt: skip
    began, began_cpu_s = time.perf_counter(), time.process_time()
    await modes[mode](count)
    took = {"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - began_cpu_s}
    await producer.aclose()
    await store.aclose()
    return took


if __name__ == "__main__":
    print(json.dumps(asyncio.run(produce(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
