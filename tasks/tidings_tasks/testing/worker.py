"""Runs claimed jobs one after the other where the test is, with the calls, contexts and policy of the real worker.

A context call is in the log before it returns, so a test can stop a job exactly there.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import dramatiq
import orjson

from tidings.protocol import Position, shard_of

from ..attempt import Attempt, StopReason
from ..job_log import job_logging
from ..outbox import Bounds, Outbox
from ..queue.broker import TidingsBroker
from ..queue.policy import Verdict, judge_timeout
from ..queue.queues import QueuePolicy, order_queues
from ..registry import Registry
from ..settings import Settings
from ..store import Claim, StepReply, Write, WriteCode, commands
from ..worker.actor_calls import AsyncActorCall, SyncActorCall, plan_actor_call
from ..worker.calls import AsyncCall, AsyncJobCall, SyncJobCall, judge_uncalled
from ..worker.execution import AsyncExecution
from .files import AttemptFiles, SavedFile
from .stopping import Stop, StopPoint
from .store import LEASE_MS, MemoryStore

__all__ = ["EagerWorker", "own_broker", "wait_for"]

_Call: TypeAlias = AsyncJobCall | AsyncActorCall | SyncJobCall | SyncActorCall

_REASONS = {
    Stop.CANCEL: StopReason.CANCELLED,
    Stop.TIME_OUT: StopReason.TIMED_OUT,
    Stop.HAND_BACK: StopReason.HANDED_BACK,
    Stop.LOSE: StopReason.LOST,
}
_DISMISS_S = 1.0

_logging_lock = threading.Lock()
_logging_depth = 0
_logging = ExitStack()


def own_broker() -> TidingsBroker:
    """Return the process's Dramatiq broker when it is ours, else one for this test alone."""
    found = dramatiq.broker.global_broker
    return found if isinstance(found, TidingsBroker) else TidingsBroker()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def wait_for(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end from plain code, also where a loop already runs in this thread."""
    if _running_loop() is None:
        asyncio.run(work)
        return
    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            failed.append(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: context.run(run), name="tidings-test-job")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


class EagerWorker:
    """Serves one ``MemoryStore``."""

    def __init__(
        self,
        store: MemoryStore,
        registry: Registry,
        policies: Mapping[str, QueuePolicy],
        settings: Settings,
    ) -> None:
        self.broker = own_broker()
        self.points: dict[str, list[StopPoint]] = {}
        """Where jobs are to be stopped, by their ids."""
        self.files: dict[str, list[SavedFile]] = {}
        """What jobs have saved, by their ids."""
        self._store, self._registry, self._policies, self._settings = store, registry, policies, settings
        # Its clock stands still while a function runs, so what one writes to a stream becomes one event.
        self._outbox = Outbox(
            self._commit,
            Bounds(),
            max_event_bytes=settings.max_event_bytes,
            clock=lambda: store.clock.now_ms / 1000,
        )
        self._lock = threading.RLock()
        self._calls = itertools.count(1)
        self._attempts: dict[str, Attempt] = {}
        self._executions: dict[str, tuple[AsyncExecution, asyncio.AbstractEventLoop]] = {}
        self._shutting_down: set[str] = set()
        self._seen: dict[str, Position] = {}

    def claim(self) -> Attempt | float | None:
        """Return the next job that is due, under its attempt; else how long (ms) nothing is due; None: nothing waits."""
        names = {*self._registry.queues, *self._policies, *self.broker.get_declared_queues()}
        reply = self._step([], [(queue, 1) for queue in order_queues(names, self._policies)])
        if reply.claims:
            return self._take(reply.claims[0])
        due_ms = reply.next_due_ms
        return None if due_ms is None or due_ms > LEASE_MS // 2 else max(1, due_ms)

    def run(self, attempt: Attempt) -> None:
        """Run an attempt to its end, in this thread where its function is a plain one."""
        with _job_logging():
            call = self._begin(attempt)
            if isinstance(call, AsyncJobCall | AsyncActorCall):
                wait_for(self._run_async(attempt, call))
            elif call is not None:
                self._end(attempt, contextvars.copy_context().run(call.run))
        self._forget(attempt)

    async def run_async(self, attempt: Attempt) -> None:
        """Run an attempt to its end, on this loop; a plain function runs on a thread, as in the real worker."""
        with _job_logging():
            call = self._begin(attempt)
            if isinstance(call, AsyncJobCall | AsyncActorCall):
                await self._run_async(attempt, call)
            elif call is not None:
                self._end(attempt, await asyncio.to_thread(call.run))
        self._forget(attempt)

    def cancel(self, job_id: str, by: str, reason: str | None) -> str:
        """Cancel a job; see ``commands.cancel`` for what is returned."""
        command = commands.cancel(job_id, by=orjson.dumps(by), reason=orjson.dumps(reason))
        outcome = self._store.run(command)[0]
        attempt = self._attempts.get(job_id)
        if outcome == "cancelling" and attempt is not None:
            self._tell(attempt, StopReason.CANCELLED)
        return outcome

    def look(self, job_id: str) -> None:
        """Stop a job where its log has come to a moment that the test named."""
        points = self.points.get(job_id)
        if not points:
            return
        page = self._store.run(commands.read_events(job_id, self._seen.get(job_id, Position("", 0))))
        for text in page.events if page is not None else ():
            event = orjson.loads(text)
            self._seen[job_id] = Position(event["epoch"], event["seq"])
            for point in points:
                if point.sees(event):
                    self._stop(job_id, point.stop)

    def _step(self, writes: Sequence[Write], wants: Sequence[tuple[str, int]] = ()) -> StepReply:
        return self._store.run(
            commands.step(
                0, worker="in-memory", call=next(self._calls), lease_ms=LEASE_MS,
                writes=writes, wants=wants, most=1,
            )
        )  # fmt: skip

    def _take(self, claim: Claim) -> Attempt:
        job_id = claim.id
        self._shutting_down.discard(job_id)
        attempt = Attempt(
            claim,
            self._outbox,
            files=AttemptFiles(max_file_bytes=self._settings.max_file_bytes),
            is_shutting_down=lambda: job_id in self._shutting_down,
        )
        self._attempts[job_id] = attempt
        return attempt

    def _begin(self, attempt: Attempt) -> _Call | None:
        self.look(attempt.job_id)
        if attempt.is_closed:
            return None
        try:
            return self._plan(attempt)
        except Exception as error:  # a validator of the author's may raise anything
            self._end(attempt, judge_uncalled(attempt, error))
            return None

    def _plan(self, attempt: Attempt) -> _Call:
        if attempt.spec.is_plain_actor:
            return plan_actor_call(attempt, self.broker)
        job_type = self._registry.get(attempt.spec.type)
        data = job_type.validate_input(attempt.spec.input)
        make = AsyncJobCall if job_type.is_async else SyncJobCall
        return make(attempt, job_type, data, self._settings.max_result_bytes)

    async def _run_async(self, attempt: Attempt, call: AsyncCall) -> None:
        over = asyncio.Event()
        execution = AsyncExecution(attempt, call, lambda *_: over.set())
        self._executions[attempt.job_id] = (execution, asyncio.get_running_loop())
        execution.start()
        if attempt.stop is not None:
            execution.stop(attempt.stop)
        try:
            await over.wait()
        finally:
            del self._executions[attempt.job_id]
            if execution.task is not None and not execution.task.done():
                execution.abandon_task()
                await asyncio.wait([execution.task], timeout=_DISMISS_S)

    def _end(self, attempt: Attempt, verdict: Verdict) -> None:
        self._outbox.close(attempt, verdict.verb, verdict.data, verdict.extra)

    def _forget(self, attempt: Attempt) -> None:
        if self._attempts.get(attempt.job_id) is attempt:
            del self._attempts[attempt.job_id]
        if isinstance(attempt.files, AttemptFiles):
            self.files.setdefault(attempt.job_id, []).extend(attempt.files.take_all())

    def _commit(self) -> None:
        touched: dict[str, None] = {}
        with self._lock:
            while (batch := self._outbox.take()).writes:
                codes = self._step(batch.writes).codes
                for attempt, code in self._outbox.settle(batch, codes):
                    touched[attempt.job_id] = None
                    if code is WriteCode.REFUSED:
                        self._tell(attempt, StopReason.LOST)
                    elif code is WriteCode.CANCEL_REQUESTED and attempt.stop is None:
                        self._tell(attempt, StopReason.CANCELLED)
        for job_id in touched:
            self.look(job_id)

    def _stop(self, job_id: str, stop: Stop) -> None:
        attempt = self._attempts.get(job_id)
        if stop is Stop.CANCEL:
            self.cancel(job_id, "test", None)
        elif attempt is None:
            raise ValueError(f"{stop.value}_at names a moment at which the job does not run")
        elif stop is Stop.SHUT_DOWN:
            self._shutting_down.add(job_id)
        else:
            if stop is Stop.HAND_BACK:
                self._shutting_down.add(job_id)
            if stop is Stop.LOSE:
                # Its lease ends now, and the next step takes the job from it.
                self._store.run(commands.renew(shard_of(job_id), [(job_id, attempt.number)], lease_ms=0))
            self._tell(attempt, _REASONS[stop])

    def _tell(self, attempt: Attempt, reason: StopReason) -> None:
        """Have a function told to stop: at its next context call, and an async one where it waits."""
        attempt.ask_to_stop(reason)
        execution, loop = self._executions.get(attempt.job_id, (None, None))
        if execution is None or loop is None:
            if reason is StopReason.TIMED_OUT:
                # As in the real worker, a plain function's attempt is over at its time, whatever its thread does.
                self._end(attempt, judge_timeout(attempt))
        elif _running_loop() is loop:
            execution.stop(reason)
        else:
            loop.call_soon_threadsafe(execution.stop, reason)


@contextmanager
def _job_logging() -> Iterator[None]:
    """Have ``logging`` reach the jobs' logs once, also where one job runs inside another one."""
    global _logging_depth
    with _logging_lock:
        _logging_depth += 1
        if _logging_depth == 1:
            _logging.enter_context(job_logging(lambda: None))
    try:
        yield
    finally:
        with _logging_lock:
            _logging_depth -= 1
            if _logging_depth == 0:
                _logging.close()
