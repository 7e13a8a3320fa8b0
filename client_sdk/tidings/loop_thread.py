"""An event loop in a thread of its own, for code that is not asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["LoopThread"]

_T = TypeVar("_T")


class LoopThread:
    """Runs coroutines for other threads. It starts at once; `close()` ends the thread and what still runs on it.

    The thread is a daemon, so a program that forgets to close it can end nevertheless.
    """

    def __init__(self, name: str) -> None:
        self._closed = False
        self._opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()
        self._loop, self._stop = self._opened.result()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run ``work`` to its end and return its result; it is cancelled when this thread is interrupted.

        Raises:
            RuntimeError: the loop is closed, or this is its own thread, which would wait for itself.
        """
        if self._closed or threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                "the client is closed" if self._closed else "called from the client's own event loop"
            )
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what runs, and wait for the thread's end. Safe to repeat."""
        if not self._closed:
            self._closed = True
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _main(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._until_closed())

    async def _until_closed(self) -> None:
        stop = asyncio.Event()
        self._opened.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()
