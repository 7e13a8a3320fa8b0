"""One running job: starts its call, times it, tells it to stop, and ends the attempt exactly once."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable

from ..attempt import ASK_AGAIN_S, Attempt, StopReason
from ..queue.policy import Verdict, judge_timeout
from ..store import Verb
from ..usage import Usage, recent_rss_bytes
from .calls import AsyncCall, SyncCall
from .threads import Threads

__all__ = ["CLEAN_UP_S", "AsyncExecution", "Execution", "SyncExecution", "forced_verdict"]

_log = logging.getLogger(__name__)

CLEAN_UP_S = 1.0
"""An async function that ran out of time may clean up for so long before the attempt ends without it."""

_SAMPLED_S = 0.01
"""An attempt that took longer reads the process's memory at its end; it costs a few microseconds."""


class Execution:
    """An attempt whose function runs. All methods belong on the worker's loop.

    Args:
        on_end: called once, when the attempt is over; its last write is then in the outbox.
    """

    def __init__(self, attempt: Attempt, on_end: Callable[[Execution, Verdict], None]) -> None:
        self.attempt = attempt
        self.is_over = False
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def is_stray(self) -> bool:
        """Whether the function still runs although the attempt is over."""
        raise NotImplementedError

    def start(self) -> None:
        """Call the function."""
        raise NotImplementedError

    def stop(self, reason: StopReason) -> None:
        """Tell the function to stop, again if it was told before."""
        raise NotImplementedError

    def abandon(self) -> None:
        """End the attempt now, whatever the function does: the worker shuts down."""
        self._end(forced_verdict(self.attempt))

    def _end(self, verdict: Verdict) -> None:
        if self.is_over:
            return
        self.is_over = True
        for timer in self._timers:
            timer.cancel()
        attempt = self.attempt
        self._measure()
        attempt.outbox.close(attempt, verdict.verb, verdict.data, _with_usage(verdict, attempt.usage))
        self._on_end(self, verdict)

    def _measure(self) -> None:
        """Keep what the attempt has used, where it can be told."""
        raise NotImplementedError

    def _after(self, delay_s: float, call: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(delay_s, call))

    def _time_out(self) -> None:
        self.stop(StopReason.TIMED_OUT)


class AsyncExecution(Execution):
    """Runs an async function as a task."""

    def __init__(
        self, attempt: Attempt, call: AsyncCall, on_end: Callable[[Execution, Verdict], None]
    ) -> None:
        super().__init__(attempt, on_end)
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._is_asking = False

    @property
    def is_stray(self) -> bool:
        """Whether the function still runs although the attempt is over."""
        return self.is_over and self._task is not None and not self._task.done()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task, to be awaited when the worker ends."""
        return self._task

    def start(self) -> None:
        """Call the function."""
        name = f"job {self.attempt.job_id}:{self.attempt.number}"
        self._task = self._loop.create_task(self._run(), name=name, context=self._call.context)
        self._after(self.attempt.spec.timeout_s, self._time_out)

    def stop(self, reason: StopReason) -> None:
        """Have the reason raised where the function waits; a function that goes on is asked again."""
        self.attempt.ask_to_stop(reason)
        self._call.interrupt()
        if reason is StopReason.TIMED_OUT:
            self._after(CLEAN_UP_S, self.abandon)
        if not self._is_asking:
            self._is_asking = True
            self._loop.call_later(ASK_AGAIN_S, self._ask_again)

    def abandon(self) -> None:
        """End the attempt now; the function is asked to stop as long as the worker lives."""
        if not self.is_over:
            _log.warning(
                "job %s attempt %d does not stop; it ends without its function",
                self.attempt.job_id,
                self.attempt.number,
            )
        super().abandon()

    def abandon_task(self) -> None:
        """End the task without the function, which would keep the loop from closing."""
        self._call.abandon()

    async def _run(self) -> None:
        self._end(await self._call.run())

    def _measure(self) -> None:
        _keep_usage(self.attempt, self._call.cpu_s)

    def _ask_again(self) -> None:
        if self._task is not None and not self._task.done():
            self._call.interrupt()
            self._loop.call_later(ASK_AGAIN_S, self._ask_again)


class SyncExecution(Execution):
    """Runs a plain function on a thread."""

    def __init__(
        self, attempt: Attempt, call: SyncCall, threads: Threads, on_end: Callable[[Execution, Verdict], None]
    ) -> None:
        super().__init__(attempt, on_end)
        self._call = call
        self._threads = threads
        self._has_returned = False
        self._cpu_s = 0.0

    @property
    def is_stray(self) -> bool:
        """Whether the function still runs although the attempt is over."""
        return self.is_over and not self._has_returned

    def start(self) -> None:
        """Call the function as soon as a thread is free; its time counts from then."""
        context = contextvars.copy_context()
        self._ticket = self._threads.submit(lambda: context.run(self._run))

    def stop(self, reason: StopReason) -> None:
        """Have the reason raised at the next context call. A time-out ends the attempt at once, without the thread."""
        self.attempt.ask_to_stop(reason)
        if reason is StopReason.TIMED_OUT:
            self.abandon()

    def abandon(self) -> None:
        """End the attempt now; its thread is given up."""
        if not self.is_over:
            self._threads.give_up(self._ticket)
        super().abandon()

    def _run(self) -> None:
        self._tell(self._begin)
        began_s = time.thread_time()
        verdict = self._call.run()
        self._cpu_s = time.thread_time() - began_s
        self._tell(self._return, verdict)

    def _measure(self) -> None:
        # Of a thread that is given up nothing is known.
        if self._has_returned:
            _keep_usage(self.attempt, self._cpu_s)

    def _tell(self, call: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            return  # the loop is closed: the worker ended without this thread

    def _begin(self) -> None:
        if not self.is_over:
            self._after(self.attempt.spec.timeout_s, self._time_out)

    def _return(self, verdict: Verdict) -> None:
        self._has_returned = True
        if not self.is_over:
            self._threads.finish()
            self._end(verdict)


def _with_usage(verdict: Verdict, usage: Usage | None) -> str:
    """Add what was used to a verdict's extra, as ``step.lua`` takes it."""
    if usage is None:
        return verdict.extra
    if verdict.verb is Verb.COMPLETE:
        return usage.to_json()
    if verdict.verb in (Verb.FAIL, Verb.RETRY):
        return f'{verdict.extra[:-1]},"usage":{usage.to_json()}}}'
    return verdict.extra


def _keep_usage(attempt: Attempt, cpu_s: float) -> None:
    peak = attempt.memory_peak_bytes
    # What is shorter than the samples' distance may have made none.
    if attempt.age_s > _SAMPLED_S:
        peak = max(peak, recent_rss_bytes())
    attempt.usage = Usage(round(cpu_s, 6), peak)


def forced_verdict(attempt: Attempt) -> Verdict:
    """End an attempt without its function: as it was to stop for, else by handing it back."""
    if attempt.stop is StopReason.CANCELLED:
        return Verdict(Verb.CANCEL, b"null")
    if attempt.stop is StopReason.TIMED_OUT:
        return judge_timeout(attempt)
    return Verdict(Verb.RELEASE, b"null")
