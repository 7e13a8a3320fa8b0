"""The worker's life: build the parts, run until told to stop, hand back what does not end in time."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import re
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any

from tidings.protocol.errors import TidingsError

from ..attempt import StopReason
from ..connection import connected
from ..files import FileStore
from ..heartbeat import Heartbeat, Role, Tally
from ..job_log import job_logging
from ..queue.broker import installed_broker
from ..queue.limit_keeper import LimitKeeper
from ..queue.queues import order_queues, policy_of
from ..registry import REGISTRY, Registry
from ..schedules.declared import check_declared
from ..schedules.scheduler import Scheduler
from ..settings import Settings
from ..stalls import StallWatch, find_cloud_run
from ..store import Keyspace, Store, SyncStore
from .condition import Condition
from .crew import Crew, CrewOptions
from .health import serve_health
from .hook_calls import HookCalls
from .lane import Lane, LaneOptions
from .leases import LeaseKeeper
from .metrics import Metrics
from .processes import PoolOptions, Processes
from .slots import Slots
from .threads import Threads

__all__ = ["Worker", "WorkerExhausted", "run_worker", "worker_name"]

_log = logging.getLogger(__name__)

_HAND_BACK_S = 0.5
_DRAIN_S = 5.0
_DISMISS_S = 1.0
_FAREWELL_S = 1.0
_SAMPLE_S = 0.5
_HOOKS_S = 0.3
_MIB = 1_048_576


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class WorkerExhausted(TidingsError):
    """As many job functions as the worker has threads do not end: the process is to be replaced."""

    code, status, title = "worker_exhausted", 500, "The worker has no usable thread left"


def worker_name(settings: Settings) -> str:
    """The worker's name: as configured, else made of host, process and a random part."""
    if settings.worker_id is not None:
        return settings.worker_id
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:40]
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


async def run_worker(
    settings: Settings,
    *,
    store_url: str,
    queues: Iterable[str] | None = None,
    registry: Registry = REGISTRY,
    stop: asyncio.Event,
    hurry: asyncio.Event | None = None,
    ready: Callable[[], None] | None = None,
) -> None:
    """Run jobs until ``stop`` is set.

    It also ends when it is worn (``worker_recycle_jobs``, ``worker_recycle_rss_mib``), in the same way.

    Then nothing is claimed any more; running jobs get ``shutdown_grace_s``, and are handed back to their queue after
    it, or as soon as ``hurry`` is set.

    Args:
        queues: serve these only; None: those of the settings' profile.
        ready: called once the first claim is possible.

    Raises:
        SettingsError: the input of a declared schedule is not valid.
        StoreMismatch: the store belongs to another installation.
        WorkerExhausted: too many functions are stuck; the other jobs were handed back.
    """
    worker = Worker(settings, store_url=store_url, queues=queues, registry=registry)
    await worker.run(stop, hurry or asyncio.Event(), ready)


class Worker:
    """One worker process's parts. Made and run once, on one loop; ``run`` closes all it opens."""

    def __init__(
        self, settings: Settings, *, store_url: str, queues: Iterable[str] | None, registry: Registry
    ) -> None:
        self.name = worker_name(settings)
        self.metrics = Metrics()
        self.health_port: int | None = None
        """Where health is served, once it is."""
        self._settings = settings
        self._url = store_url
        self._keyspace = Keyspace(settings.key_prefix, settings.shards)
        self._registry = registry
        self._broker = installed_broker()
        chosen = settings.profile.queues if queues is None else queues
        every = {*settings.queues, *registry.queues, *self._broker.get_declared_queues()}
        self._queues = order_queues(every if chosen is None else chosen, settings.queues)
        self._exhausted = asyncio.Event()
        self._slots = Slots(
            settings.profile.concurrency or settings.worker_concurrency,
            {queue: policy_of(settings.queues, queue).concurrency for queue in self._queues},
        )
        self._threads = Threads(settings.worker_threads, self._exhausted.set)
        files = FileStore(settings.data_dir / "files", max_file_bytes=settings.max_file_bytes)
        options = CrewOptions(registry, self._broker, files, settings.max_result_bytes)
        self._tally = Tally()
        self._processes = Processes(PoolOptions.of(settings, store_url))
        self._hooks = HookCalls(settings.hook_timeout_s, self.metrics.count_hook)
        self._crew = Crew(
            options, self._slots, self._threads, self._processes, self.metrics, self._tally, self._hooks
        )
        check_declared(settings.schedules, registry, settings.queues, self._keyspace)
        self._lag_s = 0.0
        self._lanes: list[Lane] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[asyncio.Task[None]] = []

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event, ready: Callable[[], None] | None) -> None:
        """Run until ``stop`` is set; see ``run_worker``."""
        async with AsyncExitStack() as stack:
            stack.callback(self._threads.close)
            stack.push_async_callback(self._processes.aclose)
            stack.enter_context(job_logging(self.metrics.dropped_logs.inc))
            stack.enter_context(connected(self._url, self._keyspace, self._settings.queues))
            store = self._open_store()
            stack.push_async_callback(store.aclose)
            self._open_lanes(store)
            limits = LimitKeeper(store, self._settings, self._registry.dependencies)
            stack.push_async_callback(self._end_tasks)
            leases = self._open_leases()
            stack.push_async_callback(leases.aclose)
            self._task(limits.watch(), "limits")
            runs = [self._task(_run_lane(lane, limits), "run", lane) for lane in self._lanes]
            for lane in self._lanes:
                self._listeners.append(self._task(lane.listen(), "listen", lane))
                self._task(lane.hear(), "hear", lane)
            self._listeners.append(self._task(self._make_scheduler(store).run(), "schedules"))
            ends = [
                *self._tasks,
                self._task(stop.wait(), "stop"),
                self._task(self._exhausted.wait(), "exhausted"),
                self._task(self._watch_wear(), "wear"),
            ]
            if ready is not None:
                self._task(self._tell_ready(ready), "ready")
            role = self._describe()
            if self._settings.worker_port is not None:
                condition = Condition(
                    role, self._crew, self._lanes, leases, self._threads, self._processes, self._tally,
                    self.metrics, lambda: self._lag_s,
                )  # fmt: skip
                self.health_port = await stack.enter_async_context(
                    serve_health(self._settings.host, self._settings.worker_port, condition)
                )
            await self._boot_middleware()
            heartbeat = self._open_heartbeat(role)
            stack.push_async_callback(asyncio.to_thread, heartbeat.close, _FAREWELL_S)
            stack.push_async_callback(self._shut_middleware_down)
            _log.info("worker %s serves %s", self.name, ", ".join(self._queues))
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            # What is handed back gives its threads up too, which is nothing to complain about.
            is_exhausted = self._exhausted.is_set()
            await self._shut_down(runs, hurry)
            for task in ends:
                if task.done() and not task.cancelled():
                    task.result()
            if is_exhausted:
                raise WorkerExhausted

    async def _boot_middleware(self) -> None:
        broker = self._broker
        await asyncio.to_thread(broker.emit_after, "process_boot")
        await asyncio.to_thread(broker.emit_before, "worker_boot", self)
        await asyncio.to_thread(broker.emit_after, "worker_boot", self)

    async def _shut_middleware_down(self) -> None:
        # Both only now that no actor runs: ShutdownNotifications would raise in the loop's thread.
        await asyncio.to_thread(self._broker.emit_before, "worker_shutdown", self)
        await asyncio.to_thread(self._broker.emit_after, "worker_shutdown", self)

    async def _shut_down(self, runs: list[asyncio.Task[None]], hurry: asyncio.Event) -> None:
        crew = self._crew
        hooks_until = time.monotonic() + self._settings.shutdown_grace_s + _HOOKS_S
        crew.tell_stopping()
        for listener in self._listeners:
            listener.cancel()
        await asyncio.wait(self._listeners, timeout=_DISMISS_S)
        for lane in self._lanes:
            lane.stop_claiming()
        if self._exhausted.is_set() or any(run.done() for run in runs):
            hurry.set()
        await self._wait_idle(self._settings.shutdown_grace_s, hurry)
        if crew.running:
            _log.info("worker %s hands %d jobs back", self.name, crew.running)
            crew.stop_all(StopReason.HANDED_BACK)
            await self._wait_idle(_HAND_BACK_S, None)
            crew.abandon_all()
        for lane in self._lanes:
            lane.close()
        _, unfinished = await asyncio.wait(runs, timeout=_DRAIN_S)
        if unfinished:
            _log.error("worker %s ends before the store took everything; what ran will run again", self.name)
        # Only now is the last outcome stored; jobs that ended early leave their hooks the rest of the grace.
        await self._hooks.aclose(max(_HOOKS_S, hooks_until - time.monotonic()))
        await crew.dismiss(_DISMISS_S)

    async def _wait_idle(self, timeout_s: float, hurry: asyncio.Event | None) -> None:
        waits = {asyncio.create_task(self._crew.wait_idle(), name="wait for running jobs")}
        if hurry is not None:
            waits.add(asyncio.create_task(hurry.wait(), name="wait for a second signal"))  # type: ignore[arg-type]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _tell_ready(self, ready: Callable[[], None]) -> None:
        for lane in self._lanes:
            await lane.attached.wait()
        ready()

    def _open_store(self) -> Store:
        settings = self._settings
        return Store(
            self._url,
            self._keyspace,
            lease_s=settings.lease_s,
            timeout_s=settings.store_timeout_s,
            max_connections=4 * self._keyspace.shards + 4,
        )

    def _open_leases(self) -> LeaseKeeper:
        lease_s = self._settings.lease_s
        # A call is repeated up to three times, and all of it has to fit into a lease.
        timeout_s = min(self._settings.store_timeout_s, lease_s / 6)
        store = SyncStore(self._url, self._keyspace, lease_s=lease_s, timeout_s=timeout_s)
        stalls = StallWatch(
            lease_s, lambda _: self.metrics.stalls.inc(), cloud_run=find_cloud_run(os.environ)
        )
        leases = LeaseKeeper(store, self._crew, lease_s=lease_s, stalls=stalls)
        leases.start()
        return leases

    def _describe(self) -> Role:
        profile = self._settings.profile
        return Role(
            name=self.name, runtime="tidings", profile=profile.name, queues=self._queues,
            concurrency=profile.concurrency or self._settings.worker_concurrency, started_ms=_now_ms(),
        )  # fmt: skip

    def _open_heartbeat(self, role: Role) -> Heartbeat:
        settings = self._settings
        store = SyncStore(
            self._url, self._keyspace, lease_s=settings.lease_s, timeout_s=settings.store_timeout_s
        )
        heartbeat = Heartbeat(
            store, role, self._tally,
            running=self._crew.attempts, is_stopping=lambda: self._crew.is_stopping, now_ms=_now_ms,
        )  # fmt: skip
        heartbeat.start()
        return heartbeat

    async def _watch_wear(self) -> None:
        """Return when the worker has run enough jobs, or has grown too large; measure memory and the loop meanwhile."""
        settings = self._settings
        # Workers that were started together do not all end together.
        most_jobs = settings.worker_recycle_jobs or math.inf
        if settings.worker_recycle_jobs:
            most_jobs += random.randint(0, settings.worker_recycle_jobs // 10)
        most_bytes = (settings.worker_recycle_rss_mib or math.inf) * _MIB
        while True:
            size_bytes = self._crew.sample_memory()
            if self._crew.ended >= most_jobs or size_bytes > most_bytes:
                _log.info(
                    "worker %s is worn (%d jobs, %d MiB): it ends, to be started again",
                    self.name, self._crew.ended, size_bytes // _MIB,
                )  # fmt: skip
                return
            asleep_at = time.monotonic()
            await asyncio.sleep(_SAMPLE_S)
            self._lag_s = max(0.0, time.monotonic() - asleep_at - _SAMPLE_S)

    def _make_scheduler(self, store: Store) -> Scheduler:
        settings = self._settings
        return Scheduler(
            store,
            self._registry,
            settings.queues,
            declared=settings.schedules,
            on_fired=self.metrics.count_schedule,
        )

    def _open_lanes(self, store: Store) -> None:
        options = LaneOptions(
            worker=self.name,
            queues=self._queues,
            policies=self._settings.queues,
            lease_ms=round(self._settings.lease_s * 1000),
            max_event_bytes=self._settings.max_event_bytes,
        )
        for shard in range(self._keyspace.shards):
            self._lanes.append(Lane(shard, options, store, self._crew, self._slots, self.metrics))

    def _task(self, work: Coroutine[Any, Any, Any], what: str, lane: Lane | None = None) -> asyncio.Task[Any]:
        name = f"worker: {what}" if lane is None else f"worker: {what} shard {lane.shard}"
        task: asyncio.Task[Any] = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        return task

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _run_lane(lane: Lane, limits: LimitKeeper) -> None:
    # Before the first claim: the store lets through what it knows no limit of.
    await limits.write(lane.shard)
    await lane.run()
