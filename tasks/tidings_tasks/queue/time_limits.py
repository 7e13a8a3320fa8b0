"""The stock worker's clock: an actor that runs too long is interrupted in its thread, and never the code around it.

An exception that one thread raises in another arrives between any two steps. So it is the last resort: an actor inside
a call of its context is told there, and whoever ends the actor's time knows that nothing arrives any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dramatiq.middleware import TimeLimitExceeded, raise_thread_exception

from ..attempt import Attempt, StopReason

__all__ = ["TimeLimits"]

_CONTEXT_CALL_S = 0.1


@dataclass(slots=True)
class _Run:
    thread_id: int
    due: float
    is_async: bool
    is_told: bool = False


class TimeLimits:
    """``begin`` and ``end`` are called by the actor's thread, ``interrupt_late`` by one other thread.

    Args:
        wake: lets that other thread look at ``next_due`` again.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._runs: dict[Attempt, _Run] = {}

    def begin(self, attempt: Attempt, *, is_async: bool = False) -> None:
        """Let the attempt's time begin on this thread, which waits for the actor's coroutine when that is async."""
        due = time.monotonic() + attempt.spec.timeout_s
        with self._lock:
            self._runs[attempt] = _Run(threading.get_ident(), due, is_async)
        self._wake()

    def cut_short(self, attempt: Attempt) -> None:
        """Interrupt an async actor, which was asked to stop, at its await. A plain one is told by its context alone."""
        with self._lock:
            run = self._runs.get(attempt)
            if run is None or not run.is_async or run.is_told:
                return
            run.is_told, run.due = True, time.monotonic() + _CONTEXT_CALL_S

    def end(self, attempt: Attempt) -> None:
        """End the attempt's time. An interrupt that has just been raised does not get out of here, and none follows."""
        while True:
            try:
                with self._lock:
                    self._runs.pop(attempt, None)
                    return
            except TimeLimitExceeded:
                continue

    def next_due(self) -> float | None:
        """When (``time.monotonic``) ``interrupt_late`` has something to do."""
        with self._lock:
            return min((run.due for run in self._runs.values()), default=None)

    def interrupt_late(self) -> None:
        """Tell the attempts that are over their time; raise in the threads of those who were told and go on."""
        now = time.monotonic()
        with self._lock:
            late = [(attempt, run) for attempt, run in self._runs.items() if run.due <= now]
            for attempt, run in late:
                attempt.ask_to_stop(StopReason.TIMED_OUT)
                if run.is_told:
                    del self._runs[attempt]
                    raise_thread_exception(run.thread_id, TimeLimitExceeded)  # type: ignore[no-untyped-call]  # Dramatiq's own
                run.is_told = True
                run.due = now + _CONTEXT_CALL_S
