"""When a job is expected to end, and whether it takes unusually long: from past durations, its place and the live workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tidings.protocol import JobState
from tidings.protocol.errors import TidingsError
from tidings_tasks.queue.queues import QueuePolicy, policy_of
from tidings_tasks.store import Durations, JobRecord, Store, WorkerInfo, worker_commands

__all__ = ["Capacity", "Eta", "Forecast", "capacity_of", "estimate", "remaining_s"]

_log = logging.getLogger(__name__)

_FRESH_S = 5.0
_RETRY_S = 0.25
_WAIT_S = 1.0
_MOST_TYPES = 200
_LEAST_COUNT_FOR_SLOW = 5
_TOLD = (JobState.QUEUED, JobState.RUNNING)
# Percentiles are up to 10 % off, and the clocks of server and store a little.
_SLOW_FACTOR, _SLOW_MORE_S = 1.1, 0.25


@dataclass(frozen=True, slots=True)
class Eta:
    """What is told of a job: seconds until its end, as far as can be known, and whether it is slow."""

    eta_s: float | None = None
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Capacity:
    """What serves a queue: how many of its jobs may run at once, how many places are free, and starts per second."""

    slots: int
    free: int
    starts_per_s: float | None = None


def capacity_of(queue: str, policy: QueuePolicy, workers: Sequence[WorkerInfo]) -> Capacity:
    """Add up what the live workers offer to a queue.

    A worker serves other queues too, so all of this is what is there at most.
    """
    serving = [worker for worker in workers if queue in worker.queues and not worker.is_stopping]
    sizes = [(min(w.concurrency or policy.concurrency, policy.concurrency), w) for w in serving]
    slots = sum(size for size, _ in sizes)
    free = sum(max(0, size - worker.running_count) for size, worker in sizes)
    if policy.max_running is not None:
        slots, free = min(slots, policy.max_running), min(free, policy.max_running)
    rate = policy.rate
    return Capacity(slots, free, None if rate is None else rate.count / rate.per_s)


def estimate(record: JobRecord, durations: Durations | None, capacity: Capacity, now_ms: int) -> Eta:
    """Work out a job's hints from what is known of its type and of its queue."""
    if record.state is JobState.QUEUED:
        return Eta(_queued_s(record, durations, capacity))
    if record.state is not JobState.RUNNING or record.started_ms is None:
        return Eta()
    elapsed_s = max(0.0, (now_ms - record.started_ms) / 1000)
    eta_s = remaining_s(record, now_ms)
    if eta_s is None and durations is not None:
        # Who has outlived the half of them belongs to the slower ones; of the slowest nothing can be said.
        usual_s = next((p for p in (durations.p50_s, durations.p90_s) if p >= elapsed_s), None)
        eta_s = None if usual_s is None else usual_s - elapsed_s
    slow = (
        durations is not None
        and durations.count >= _LEAST_COUNT_FOR_SLOW
        and elapsed_s > durations.p95_s * _SLOW_FACTOR + _SLOW_MORE_S
    )
    return Eta(None if eta_s is None else round(eta_s, 3), slow)


def remaining_s(record: JobRecord, now_ms: int) -> float | None:
    """Return what the function's own progress says: its ``eta_s``, else by its percentage; None when it says nothing."""
    if record.progress is None or record.started_ms is None or record.updated_ms <= record.started_ms:
        return None  # or it is the attempt's before
    progress: dict[str, Any] = orjson.loads(record.progress)
    since_s = max(0.0, (now_ms - record.updated_ms) / 1000)
    if progress.get("eta_s") is not None:
        return max(0.0, float(progress["eta_s"]) - since_s)
    percent = progress.get("percent")
    worked_s = (record.updated_ms - record.started_ms) / 1000
    if percent is None or not 0 < percent <= 100:
        return None
    return max(0.0, worked_s * (100 - float(percent)) / float(percent) - since_s)


def _queued_s(record: JobRecord, durations: Durations | None, capacity: Capacity) -> float | None:
    place = record.queue_place
    if durations is None or place is None or record.waiting_for is not None or capacity.slots == 0:
        return None
    # In a busy queue a place becomes free every p50 / slots; those ahead are taken to be of this type.
    wait_s = max(0, place - capacity.free) * durations.p50_s / capacity.slots
    if capacity.starts_per_s:
        wait_s = max(wait_s, (place - 1) / capacity.starts_per_s)
    return round(wait_s + durations.p50_s, 3)


class Forecast:
    """Keeps what estimates rest on: one call for all types asked about, at most every five seconds.

    Used on one loop. While the store is away the last known numbers are used.
    """

    def __init__(
        self,
        store: Store,
        queues: Mapping[str, QueuePolicy],
        *,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store, self._queues = store, queues
        self._clock, self._now_ms = clock, now_ms
        self._lock = asyncio.Lock()
        self._at = float("-inf")
        # By type, those asked about last at the end; None: nothing is known.
        self._durations: OrderedDict[str, Durations | None] = OrderedDict()
        self._unknown: set[str] = set()
        self._workers: list[WorkerInfo] = []

    async def hints(self, *records: JobRecord) -> list[dict[str, Any]]:
        """Return ``eta_s`` and ``slow`` of each job, to be laid over its view. Never raises for want of the store."""
        kinds = {record.spec.type for record in records if record.state in _TOLD}
        for kind in kinds:
            self._ask_about(kind)
        if self._is_due(kinds):
            async with self._lock:
                if self._is_due(kinds):
                    await self._refresh()
        now_ms = self._now_ms()
        return [self._hints(record, now_ms) if record.state in _TOLD else {} for record in records]

    def _hints(self, record: JobRecord, now_ms: int) -> dict[str, Any]:
        policy = policy_of(self._queues, record.queue)
        capacity = capacity_of(record.queue, policy, self._workers)
        found = estimate(record, self._durations.get(record.spec.type), capacity, now_ms)
        return {"eta_s": found.eta_s, "slow": found.slow}

    def _ask_about(self, kind: str) -> None:
        if kind not in self._durations:
            self._durations[kind] = None
            self._unknown.add(kind)
            if len(self._durations) > _MOST_TYPES:
                forgotten, _ = self._durations.popitem(last=False)
                self._unknown.discard(forgotten)
        self._durations.move_to_end(kind)

    def _is_due(self, kinds: set[str]) -> bool:
        age_s = self._clock() - self._at
        return bool(kinds) and age_s > (_FRESH_S if self._unknown.isdisjoint(kinds) else _RETRY_S)

    async def _refresh(self) -> None:
        self._at = self._clock()
        kinds = list(self._durations)
        try:
            async with asyncio.timeout(_WAIT_S):
                durations, workers = await asyncio.gather(
                    self._store.run(worker_commands.read_durations(kinds)),
                    self._store.run(worker_commands.list_workers()),
                )
        except (TidingsError, TimeoutError) as error:
            _log.debug("estimates rest on old numbers: %s", error)
            return
        self._workers = workers
        self._unknown.difference_update(kinds)
        for kind in kinds:
            if kind in self._durations:
                self._durations[kind] = durations.get(kind)
