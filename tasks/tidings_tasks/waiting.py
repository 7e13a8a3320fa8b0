"""Waiting for the store from a thread or an event loop: what ``concurrent.futures.Future`` does, for a tenth of its price.

A future of the standard library makes a condition and two locks; an awaited progress event would cost more in them than
in all the rest.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

__all__ = ["Waiter"]

_lock = threading.Lock()  # held for a moment at a time, by whoever waits or ends it


class Waiter:
    """Done once, by any thread. One party waits: ``wait`` blocks its thread, ``on_done`` is for everybody else."""

    __slots__ = ("_call", "is_abandoned", "is_done")

    def __init__(self) -> None:
        self.is_done = False
        self.is_abandoned = False
        """Whether nobody waits any more."""
        self._call: Callable[[], None] | None = None

    def finish(self) -> None:
        """End the waiting."""
        with _lock:
            self.is_done, call = True, self._call
        if call is not None:
            call()

    def on_done(self, call: Callable[[], None]) -> None:
        """Call ``call`` once: when it is done, on the thread that says so, or at once."""
        with _lock:
            if not self.is_done:
                self._call = call
                return
        call()

    def wait(self) -> None:
        """Block until it is done."""
        if not self.is_done:
            done = threading.Event()
            self.on_done(done.set)
            done.wait()

    async def wait_here(self) -> None:
        """Wait on the running loop, which is not woken through a socket when its own thread says that it is done."""
        if self.is_done:
            return
        loop, thread = asyncio.get_running_loop(), threading.get_ident()
        here: asyncio.Future[None] = loop.create_future()

        def finish() -> None:
            if not here.done():
                here.set_result(None)

        def tell() -> None:
            if threading.get_ident() == thread:
                finish()
            else:
                loop.call_soon_threadsafe(finish)

        self.on_done(tell)
        try:
            await here
        except asyncio.CancelledError:
            self.is_abandoned = True
            raise
