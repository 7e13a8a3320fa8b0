"""Runs a coroutine inside a task so that a cancellation of ours reaches it as the reason it was asked to stop.

``task.cancel()`` throws a bare ``CancelledError`` in at the innermost await. The driver stands at the outermost one
and forwards what goes in and out as ``await`` does (PEP 380), but puts our exception in the place of that one.
A cancellation that is not ours, as ``asyncio.timeout`` and ``TaskGroup`` use inside the function, passes unchanged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from time import perf_counter_ns
from typing import Any, Generic, TypeVar

from ..usage import SHORT_TURN_NS, begin_turn, cpu_of_long_turn

__all__ = ["Driver"]

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Driver(Generic[T]):
    """Await it once, in the task that is to run ``coroutine``."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], make_error: Callable[[], BaseException]) -> None:
        self._coroutine = coroutine
        self._make_error = make_error
        self._task: asyncio.Task[Any] | None = None
        self._is_asked = False
        self._is_abandoned = False
        self.is_done = False
        self.cpu_ns = 0
        """CPU time of the coroutine's turns so far, as ``usage`` takes it."""

    def interrupt(self) -> None:
        """Have the error raised in the coroutine, where it waits. Does nothing once it has ended."""
        if self.is_done:
            return
        self._is_asked = True
        if self._task is not None:
            self._task.cancel()

    def abandon(self) -> None:
        """Have the task end without the coroutine, which does not do as it was told. The worker is about to end."""
        if self.is_done:
            return
        self._is_abandoned = True
        if self._task is not None:
            self._task.cancel()

    def __await__(self) -> Generator[Any, Any, T]:
        self._task = asyncio.current_task()
        coroutine = self._coroutine
        value: Any = None
        error: BaseException | None = self._make_error() if self._is_asked else None
        self._is_asked = False
        try:
            while True:
                began_ns = begin_turn()
                try:
                    if error is None:
                        waits_for = coroutine.send(value)
                    else:
                        thrown, error = error, None
                        waits_for = coroutine.throw(thrown)
                except StopIteration as stop:
                    result: T = stop.value
                    return result
                finally:
                    took_ns = perf_counter_ns() - began_ns
                    self.cpu_ns += took_ns if took_ns < SHORT_TURN_NS else cpu_of_long_turn(took_ns)
                try:
                    value = yield waits_for
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as caught:
                    if self._is_abandoned:
                        self._close()
                        raise
                    error = self._replace(caught)
        finally:
            self.is_done = True

    def _close(self) -> None:
        try:
            self._coroutine.close()
        except BaseException as error:
            _log.warning("a job function was abandoned, and objected: %r", error)

    def _replace(self, caught: BaseException) -> BaseException:
        if not self._is_asked or not isinstance(caught, asyncio.CancelledError):
            return caught
        self._is_asked = False
        if self._task is not None:
            # The request is delivered now; left standing, it would break ``asyncio.timeout`` in the clean-up.
            self._task.uncancel()
        return self._make_error()
