"""Jobs in memory: submits them, runs them when a test says so, and moves the clock over what they wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from dramatiq import Actor, Message

from tidings.protocol import JobState

from ..attempt import Attempt
from ..connection import Submitter, substituted
from ..job_type import JobType
from ..queue.broker import TidingsBroker
from ..queue.dependencies import breakers_of
from ..queue.queues import BUILT_IN_POLICIES, QueuePolicy, limits_of
from ..registry import REGISTRY, Registry
from ..settings import Settings
from ..store import commands
from .files import SavedFile
from .job_run import JobRun
from .stopping import Moment, Stop, StopPoint
from .store import MemoryStore
from .valkey import Clock
from .worker import EagerWorker

__all__ = ["InMemoryJobs", "Mode", "Time"]

Mode = Literal["recorded", "eager"]
Time = Literal["skip", "real"]

_KEPT_S = 10 * 365 * 86_400.0

_Effects = Generator[Attempt | float, None, list[JobRun]]


class InMemoryJobs:
    """A store of its own and a worker that runs when it is told to. Make one for a test; nothing has to be closed.

    The clock stands still while nothing is waited for. ``drain`` and ``run`` move it to the next thing that is due, so
    a retry after an hour takes no time. Inside a function time is real: what it sleeps, it sleeps.

    Args:
        registry: the types there are; None: those that ``@job`` has registered.
        policies: of the queues, where they are not the built-in ones.
        settings: bounds of events, results and files.
        limits: have the limits of queues and the circuit breakers hold, as they do once a worker has started. What they put
            off is run when its time has come, so ``drain`` travels over that too.
        time: ``"real"`` waits for what is due instead of moving the clock.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        *,
        policies: Mapping[str, QueuePolicy] = BUILT_IN_POLICIES,
        settings: Settings | None = None,
        limits: bool = False,
        time: Time = "skip",
    ) -> None:
        self._clock = Clock(_now_ms())
        self.store = MemoryStore(self._clock)
        """The store, for whatever else a test wants to ask it."""
        self.mode: Mode = "recorded"
        """``recorded``: jobs wait to be run. ``eager``: a job runs inside the call that submits it."""
        self.most_attempts = 10_000
        """How many attempts one call may run: jobs that submit each other for ever then fail their test."""
        self.store.on_stored = self._on_stored
        self._registry = REGISTRY if registry is None else registry
        # What has ended can be looked at however far a test travels.
        kept = {"completed_kept_s": _KEPT_S, "failed_kept_s": _KEPT_S}
        self._policies = {name: policy.model_copy(update=kept) for name, policy in policies.items()}
        self._ended: set[str] = set()
        self._is_real = time == "real"
        if limits:
            breakers = breakers_of({}, self._registry.dependencies)
            self.store.run(commands.configure(0, queues=limits_of(self._policies), dependencies=breakers))
        self._worker = EagerWorker(
            self.store, self._registry, self._policies, settings or Settings(env="test")
        )

    @property
    def now(self) -> datetime:
        """What time it is for the store."""
        return datetime.fromtimestamp(self._clock.now_ms / 1000, UTC)

    @property
    def submitted(self) -> list[JobRun]:
        """All jobs, in the order in which they were submitted, by the test or by other jobs."""
        return [JobRun(self, job_id) for job_id in self.store.ids]

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have ``job.submit()`` and ``actor.send()`` of this process submit here while the context lasts."""
        with ExitStack() as stack:
            stack.enter_context(substituted(self.store, self._policies))
            stack.enter_context(self._lent_to(self._worker.broker))
            yield

    def submit(self, job_type: JobType[Any, Any], input: Any = None, **options: Any) -> JobRun:
        """Submit a job as ``job_type.submit`` does, with its arguments and errors."""
        submitter = Submitter(self.store, self._policies, self._registry)
        return JobRun(self, submitter.submit(job_type, input, **{"owner": "system", "org": None, **options}))

    def send(self, actor: Actor[..., Any], *args: Any, **kwargs: Any) -> JobRun:
        """Submit a job of a plain Dramatiq actor, as ``actor.send`` does."""
        return self.send_with_options(actor, args, kwargs)

    def send_with_options(
        self,
        actor: Actor[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        delay: int | None = None,
        **options: Any,
    ) -> JobRun:
        """Submit a job of a plain Dramatiq actor, as ``actor.send_with_options`` does; ``delay`` in ms."""
        message: Message[Any] = actor.message_with_options(
            args=tuple(args), kwargs=dict(kwargs or {}), **options
        )
        with self._lent_to(actor.broker), substituted(self.store, self._policies):
            return JobRun(self, actor.broker.enqueue(message, delay=delay).message_id)

    def cancel(self, job_id: str, *, by: str = "test", reason: str | None = None) -> str:
        """Cancel a job; see ``JobRun.cancel``."""
        return self._worker.cancel(job_id, by, reason)

    def files_of(self, job_id: str) -> list[SavedFile]:
        """The files that a job has saved."""
        return self._worker.files.get(job_id, [])

    def travel(self, *, seconds: float = 0, until: datetime | None = None) -> None:
        """Move the clock, by so many seconds or to a moment (with a time zone). What then is due waits to be run."""
        ms = round(seconds * 1000)
        if until is not None:
            ms = round(until.timestamp() * 1000) - self._clock.now_ms
        self._clock.advance(ms)

    def run(self, job: JobRun, *, attempts: int | None = None, **moments: Moment | None) -> JobRun:
        """Run a job to its end, over all its attempts, and before it what is due before it.

        Args:
            attempts: run so many attempts at most; the job may then wait for another one.
            moments: ``cancel_at``, ``time_out_at``, ``hand_back_at``, ``lose_at``, ``shut_down_at``, see ``run_job``.

        Raises:
            RuntimeError: it does not end within ``most_attempts``.
            ValueError: a moment that was named never came.
        """
        self._perform(self._drive(job, attempts, moments))
        return job

    async def run_async(
        self, job: JobRun, *, attempts: int | None = None, **moments: Moment | None
    ) -> JobRun:
        """Do what ``run`` does, on the test's own event loop."""
        await self._perform_async(self._drive(job, attempts, moments))
        return job

    def run_next(self) -> JobRun | None:
        """Run one attempt of the next job that is due; None when nothing is due now."""
        found = self._perform(self._run_due(1, until_ms=self._clock.now_ms))
        return found[0] if found else None

    async def run_next_async(self) -> JobRun | None:
        """Do what ``run_next`` does, on the test's own event loop."""
        found = await self._perform_async(self._run_due(1, until_ms=self._clock.now_ms))
        return found[0] if found else None

    def run_all(self) -> list[JobRun]:
        """Run all that is due now and what that submits; returns the jobs, once for each attempt. Delays stay."""
        return self._perform(self._run_due(None, until_ms=self._clock.now_ms))

    async def run_all_async(self) -> list[JobRun]:
        """Do what ``run_all`` does, on the test's own event loop."""
        return await self._perform_async(self._run_due(None, until_ms=self._clock.now_ms))

    def drain(self, until: datetime | timedelta | None = None) -> list[JobRun]:
        """Run everything to its end, and travel over all delays; with ``until``, no further than that.

        Raises:
            RuntimeError: it does not end within ``most_attempts``.
        """
        return self._perform(self._run_due(None, until_ms=self._ms_of(until)))

    async def drain_async(self, until: datetime | timedelta | None = None) -> list[JobRun]:
        """Do what ``drain`` does, on the test's own event loop."""
        return await self._perform_async(self._run_due(None, until_ms=self._ms_of(until)))

    def _ms_of(self, until: datetime | timedelta | None) -> int | None:
        moment = self.now + until if isinstance(until, timedelta) else until
        return None if moment is None else round(moment.timestamp() * 1000)

    @contextmanager
    def _lent_to(self, broker: object) -> Iterator[None]:
        """Have a broker that was given a store of its own use this one."""
        if not isinstance(broker, TidingsBroker):
            raise TypeError(
                f"the actor is declared on a {type(broker).__name__}; call "
                "dramatiq.set_broker(TidingsBroker()) before its module is imported"
            )
        with broker.lent(self.store):
            yield

    def _on_stored(self, ids: list[str]) -> None:
        if self.mode == "recorded":
            return
        for job_id in ids:
            run = JobRun(self, job_id)
            if run.state in (JobState.QUEUED, JobState.RUNNING):
                self.run(run)

    def _drive(self, job: JobRun, attempts: int | None, moments: Mapping[str, Moment | None]) -> _Effects:
        points = StopPoint.read({_stop_of(name): moment for name, moment in moments.items()})
        self._worker.points[job.id] = points
        self._worker.look(job.id)
        most = job.attempts + attempts if attempts is not None else None
        try:
            # A job may depend on others: its parents' steps, or whoever was in the line before it.
            for _ in range(self.most_attempts):
                if job.state.is_terminal or job.attempts == most:
                    break
                if not (yield from self._run_due(1, until_ms=None)):
                    break
            else:
                raise RuntimeError(f"{job!r} has not ended within {self.most_attempts} attempts")
        finally:
            del self._worker.points[job.id]
        missed = [point.stop.value for point in points if not point.is_over]
        if missed:
            raise ValueError(f"{job!r}: the moment of {missed[0]}_at never came; its events were {job.kinds}")
        return [job]

    def _run_due(self, most: int | None, *, until_ms: int | None) -> _Effects:
        found: list[JobRun] = []
        while most is None or len(found) < most:
            claimed = self._worker.claim()
            if isinstance(claimed, Attempt):
                if len(found) >= self.most_attempts:
                    raise RuntimeError(
                        f"jobs do not end within {self.most_attempts} attempts; the last: {found[-1]!r}"
                    )
                yield claimed
                found.append(JobRun(self, claimed.job_id))
                continue
            is_late = until_ms is not None and claimed is not None and self._clock.now_ms + claimed > until_ms
            if claimed is None or is_late or not self._is_anything_waiting():
                if until_ms is not None:
                    self._clock.advance(until_ms - self._clock.now_ms)
                break
            yield claimed
            self._clock.advance(round(claimed))
        return found

    def _is_anything_waiting(self) -> bool:
        """Tell whether a job waits; for the store there is always something to do, such as to forget ended ones."""
        for job_id in self.store.ids:
            if job_id in self._ended:
                continue
            record = self.store.run(commands.read_job(job_id))
            if record is None or record.state.is_terminal:
                self._ended.add(job_id)
            elif record.state is not JobState.RUNNING:
                return True
        return False

    def _perform(self, effects: _Effects) -> list[JobRun]:
        with self.installed():
            while True:
                try:
                    effect = next(effects)
                except StopIteration as stop:
                    found: list[JobRun] = stop.value
                    return found
                if isinstance(effect, Attempt):
                    self._worker.run(effect)
                elif self._is_real:
                    time.sleep(effect / 1000)

    async def _perform_async(self, effects: _Effects) -> list[JobRun]:
        with self.installed():
            while True:
                try:
                    effect = next(effects)
                except StopIteration as stop:
                    found: list[JobRun] = stop.value
                    return found
                if isinstance(effect, Attempt):
                    await self._worker.run_async(effect)
                elif self._is_real:
                    await asyncio.sleep(effect / 1000)


def _stop_of(argument: str) -> Stop:
    try:
        return Stop(argument.removesuffix("_at"))
    except ValueError:
        known = ", ".join(f"{stop.value}_at" for stop in Stop)
        raise TypeError(f"there is no argument {argument!r}; a job is stopped by {known}") from None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
