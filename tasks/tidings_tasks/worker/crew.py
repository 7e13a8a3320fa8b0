"""The running jobs of one worker: takes claims in, hands out slots, and finds a job that is to stop."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from ..attempt import Attempt, StopReason
from ..files import FileStore
from ..heartbeat import Tally
from ..outbox import Outbox
from ..queue.broker import TidingsBroker
from ..queue.policy import Verdict
from ..registry import Registry
from ..store import Claim, Verb, WriteCode
from ..usage import rss_bytes
from .actor_calls import AsyncActorCall, plan_actor_call
from .calls import AsyncJobCall, SyncJobCall, judge_uncalled
from .execution import AsyncExecution, Execution, SyncExecution
from .hook_calls import HookCalls
from .metrics import Metrics
from .process_execution import ProcessExecution
from .processes import Processes
from .slots import Slots
from .threads import Threads

__all__ = ["Crew", "CrewOptions"]

_log = logging.getLogger(__name__)

_Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class CrewOptions:
    """What a crew is told once."""

    registry: Registry
    broker: TidingsBroker
    files: FileStore | None
    max_result_bytes: int


class Crew:
    """Starts claimed jobs and keeps them until their last write is stored. Used on one loop, but for ``held``."""

    def __init__(
        self,
        options: CrewOptions,
        slots: Slots,
        threads: Threads,
        processes: Processes,
        metrics: Metrics,
        tally: Tally,
        hooks: HookCalls,
    ) -> None:
        self._options = options
        self._slots = slots
        self._threads = threads
        self._processes = processes
        self._metrics = metrics
        self._tally = tally
        self._hooks = hooks
        self._rss_bytes = rss_bytes()
        self._running: dict[_Key, Execution] = {}
        self._strays: set[AsyncExecution] = set()
        self._held: dict[int, dict[_Key, Attempt]] = {}
        self._held_lock = threading.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        self.is_stopping = False
        self.ended = 0
        """How many attempts have ended here."""

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._running)

    def attempts(self) -> list[Attempt]:
        """The attempts that run, the oldest first. Any thread may ask."""
        # One step of the interpreter copies them, so no change can come in between.
        return [execution.attempt for execution in list(self._running.values())]

    def sample_memory(self) -> int:
        """Note how much memory the process has, on behalf of all that runs; returns it."""
        self._rss_bytes = rss_bytes()
        for execution in self._running.values():
            attempt = execution.attempt
            attempt.memory_peak_bytes = max(attempt.memory_peak_bytes, self._rss_bytes)
        return self._rss_bytes

    def take(self, shard: int, outbox: Outbox, claims: Iterable[Claim]) -> None:
        """Start the jobs of these claims, each in a slot that was reserved for it."""
        for claim in claims:
            attempt = Attempt(
                claim, outbox, files=self._options.files, is_shutting_down=lambda: self.is_stopping
            )
            key = (attempt.job_id, attempt.number)
            with self._held_lock:
                self._held.setdefault(shard, {})[key] = attempt
            if self.is_stopping:
                # The claim was under way when the worker was told to stop.
                outbox.close(attempt, Verb.RELEASE, b"null")
                self._slots.give_back(attempt.queue)
                continue
            try:
                execution = self._plan(attempt)
            except Exception as error:  # a validator of the author's may raise anything
                self._refuse(attempt, error)
                self._slots.give_back(attempt.queue)
                continue
            attempt.memory_peak_bytes = self._rss_bytes
            self._running[key] = execution
            self._idle.clear()
            self._metrics.count_start(attempt)
            self._hooks.tell_started(attempt)
            execution.start()

    def tell_stopping(self) -> None:
        """Start no more jobs, and let those that run know: ``ctx.shutting_down``."""
        self.is_stopping = True
        self._processes.tell_shutting_down()

    def stop(self, job_id: str, attempt: int, reason: StopReason) -> None:
        """Tell a running job to stop; nothing happens when it does not run here any more."""
        execution = self._running.get((job_id, attempt))
        if execution is not None and execution.attempt.stop is not reason:
            execution.stop(reason)

    def settle(self, shard: int, settled: Iterable[tuple[Attempt, WriteCode]]) -> None:
        """Act on what the store said to the writes of these attempts."""
        for attempt, code in settled:
            key = (attempt.job_id, attempt.number)
            if code is WriteCode.REFUSED:
                self._lose(shard, attempt)
            elif code is WriteCode.CANCEL_REQUESTED:
                self.stop(*key, StopReason.CANCELLED)
            if attempt.is_closed and attempt.pending_writes == 0:
                self._let_go(shard, key)
                if attempt.verdict is not None and code is not WriteCode.REFUSED:
                    self._hooks.tell_ended(attempt, attempt.verdict, code)

    def renewed(self, shard: int, attempts: Iterable[_Key], codes: Iterable[WriteCode]) -> None:
        """Act on what the store said to the renewal of these leases."""
        for key, code in zip(attempts, codes, strict=True):
            attempt = self._held.get(shard, {}).get(key)
            if attempt is None or attempt.is_closed:
                continue  # its last write is on the way, and took the lease with it
            if code is WriteCode.REFUSED:
                self._lose(shard, attempt)
            elif code is WriteCode.CANCEL_REQUESTED:
                self.stop(*key, StopReason.CANCELLED)

    def held(self, shard: int) -> list[_Key]:
        """The attempts of a shard whose leases are to be renewed. Any thread may ask."""
        with self._held_lock:
            return list(self._held.get(shard, ()))

    async def wait_idle(self) -> None:
        """Wait until no job runs."""
        await self._idle.wait()

    def stop_all(self, reason: StopReason) -> None:
        """Tell all jobs to stop."""
        for execution in list(self._running.values()):
            execution.stop(reason)

    def abandon_all(self) -> None:
        """End all attempts now, whatever their functions do."""
        for execution in list(self._running.values()):
            execution.abandon()

    async def dismiss(self, timeout_s: float) -> None:
        """End the tasks of functions that outlived their attempts. The last thing a crew does."""
        tasks = []
        for execution in self._strays:
            execution.abandon_task()
            if execution.task is not None:
                tasks.append(execution.task)
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    def _plan(self, attempt: Attempt) -> Execution:
        spec, options = attempt.spec, self._options
        if spec.is_plain_actor:
            planned = plan_actor_call(attempt, options.broker)
            if isinstance(planned, AsyncActorCall):
                return AsyncExecution(attempt, planned, self._on_end)
            return SyncExecution(attempt, planned, self._threads, self._on_end)
        job_type = options.registry.get(spec.type)
        attempt.check_input()
        data = job_type.validate_input(spec.input)
        if job_type.process:
            return ProcessExecution(attempt, job_type.fn.__module__, self._processes, self._on_end)
        if job_type.is_async:
            return AsyncExecution(
                attempt, AsyncJobCall(attempt, job_type, data, options.max_result_bytes), self._on_end
            )
        call = SyncJobCall(attempt, job_type, data, options.max_result_bytes)
        return SyncExecution(attempt, call, self._threads, self._on_end)

    def _refuse(self, attempt: Attempt, error: Exception) -> None:
        verdict = judge_uncalled(attempt, error)
        attempt.verdict = verdict
        attempt.outbox.close(attempt, verdict.verb, verdict.data, verdict.extra)
        self._metrics.refused.labels(verdict.verb.value).inc()

    def _on_end(self, execution: Execution, verdict: Verdict) -> None:
        attempt = execution.attempt
        self._running.pop((attempt.job_id, attempt.number), None)
        self.ended += 1
        attempt.verdict = verdict
        self._metrics.count_end(attempt, verdict)
        self._tally.count(attempt, verdict.verb)
        if isinstance(execution, AsyncExecution) and execution.is_stray:
            self._strays = {stray for stray in self._strays if stray.is_stray} | {execution}
        if not self._running:
            self._idle.set()
        self._slots.give_back(attempt.queue)

    def _lose(self, shard: int, attempt: Attempt) -> None:
        key = (attempt.job_id, attempt.number)
        self._let_go(shard, key)
        was_open = not attempt.is_closed
        execution = self._running.get(key)
        if execution is not None:
            execution.stop(StopReason.LOST)
        else:
            attempt.ask_to_stop(StopReason.LOST)
        self._metrics.lost.inc()
        _log.warning(
            "attempt %d of job %s lost its lease%s",
            attempt.number,
            attempt.job_id,
            "" if was_open else " before its outcome was stored",
        )

    def _let_go(self, shard: int, key: _Key) -> None:
        with self._held_lock:
            self._held.get(shard, {}).pop(key, None)
