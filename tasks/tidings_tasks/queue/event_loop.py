"""Dramatiq's event loop thread for async actors, which a busy machine can neither keep from starting nor from ending.

Dramatiq 2.2 gives the thread one second to start. When it takes longer, no async actor runs, nobody stops the thread, and
the process never ends at SIGTERM, since it waits for a thread that is no daemon.
"""

from __future__ import annotations

from typing import Any

from dramatiq.asyncio import EventLoopThread, get_event_loop_thread, set_event_loop_thread
from dramatiq.middleware import AsyncIO

from .time_limits import RUNNING, Running

__all__ = ["PatientAsyncIO"]

_START_S = 60.0


class _LoopThread(EventLoopThread):
    def run_coroutine(self, coro: Any) -> Any:
        running = RUNNING.get()
        return super().run_coroutine(coro if running is None else self._interruptible(coro, running))

    async def _interruptible(self, coro: Any, running: Running) -> Any:
        # Not at the top: the worker's package imports this one.
        from ..worker.driver import Driver

        driver: Driver[Any] = Driver(coro, running.attempt.error)

        def interrupt() -> None:
            self.loop.call_soon_threadsafe(driver.interrupt)

        running.limits.set_interrupt(running.attempt, interrupt)
        try:
            return await driver
        finally:
            running.limits.end(running.attempt)


class PatientAsyncIO(AsyncIO):
    """Stands in for AsyncIO, whose only option is that it is there."""

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        """Start the loop.

        Raises:
            RuntimeError: it did not start within a minute.
        """
        thread = _LoopThread(self.logger)
        # A worker that ends by an error, or at a second signal, must not wait for it.
        thread.daemon = True
        thread.start(timeout=_START_S)
        set_event_loop_thread(thread)

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """Stop the loop, if there is one."""
        thread = get_event_loop_thread()
        set_event_loop_thread(None)
        if thread is not None:
            thread.stop()  # type: ignore[no-untyped-call]  # Dramatiq's own
