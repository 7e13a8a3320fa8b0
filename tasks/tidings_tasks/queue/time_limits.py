"""The stock worker's clock: an actor that runs too long is interrupted, and never the code around it.

An async actor is interrupted at its await, on its loop. A plain one gets an exception in its thread, which arrives between
any two steps: so that is the last resort, after its context has had the time to tell it, and the time ends within the
actor's own call, where nothing arrives any more once it is over.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from dramatiq.middleware import TimeLimitExceeded, raise_thread_exception

from ..attempt import Attempt, StopReason

__all__ = ["RUNNING", "Running", "TimeLimits", "ends_its_time"]

_CONTEXT_CALL_S = 0.1


@dataclass(frozen=True, slots=True)
class Running:
    """What the code that an actor runs in knows of its time."""

    attempt: Attempt
    limits: TimeLimits


RUNNING: ContextVar[Running | None] = ContextVar("tidings_running", default=None)
"""Set while a message is processed in a thread of the stock worker."""


def ends_its_time(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Have a plain actor's time end with its own call, before whatever is behind it."""

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            if (running := RUNNING.get()) is not None:
                running.limits.end(running.attempt)

    return run


@dataclass(slots=True)
class _Run:
    thread_id: int
    due: float
    is_async: bool
    interrupt: Callable[[], None] | None = None
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
        RUNNING.set(Running(attempt, self))
        self._wake()

    def set_interrupt(self, attempt: Attempt, interrupt: Callable[[], None]) -> None:
        """Say how an async actor is interrupted at its await; any thread may call that."""
        with self._lock:
            if attempt in self._runs:
                self._runs[attempt].interrupt = interrupt

    def cut_short(self, attempt: Attempt) -> None:
        """Interrupt an async actor, which was asked to stop, at its await. A plain one is told by its context alone."""
        with self._lock:
            run = self._runs.get(attempt)
            # Once: it may have something to clean up. After that only its time limit interrupts it.
            if run is not None and run.interrupt is not None and not run.is_told:
                run.is_told = True
                run.interrupt()

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
                if run.interrupt is not None:
                    del self._runs[attempt]
                    run.interrupt()
                elif run.is_async:
                    run.due = now + _CONTEXT_CALL_S  # its loop has not come to it yet
                elif run.is_told:
                    del self._runs[attempt]
                    raise_thread_exception(run.thread_id, TimeLimitExceeded)  # type: ignore[no-untyped-call]  # Dramatiq's own
                else:
                    run.is_told = True
                    run.due = now + _CONTEXT_CALL_S
