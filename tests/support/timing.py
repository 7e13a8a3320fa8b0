"""Time limits of tests, scaled by one factor, and waiting on what other processes do.

``TEST_TIMEOUT_FACTOR=3`` makes every limit three times as long, for slow machines.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["TIMEOUT_FACTOR", "eventually", "eventually_sync", "scaled"]

T = TypeVar("T")

TIMEOUT_FACTOR = float(os.environ.get("TEST_TIMEOUT_FACTOR", "1"))
_POLL_S = 0.01


def scaled(seconds: float) -> float:
    """Return a time limit for this machine, seconds."""
    return seconds * TIMEOUT_FACTOR


async def eventually(condition: Callable[[], T | Awaitable[T]], timeout_s: float = 10.0) -> T:
    """Wait until ``condition`` returns something true, and return that.

    Only for what another process does and gives no signal of; inside one process wait on the signal itself.

    Raises:
        TimeoutError: it did not within ``timeout_s`` (scaled).
    """
    async with asyncio.timeout(scaled(timeout_s)):
        while True:
            found = condition()
            value = await found if inspect.isawaitable(found) else found
            if value:
                return value
            await asyncio.sleep(_POLL_S)


def eventually_sync(condition: Callable[[], T], timeout_s: float = 10.0) -> T:
    """Do the same as ``eventually``, without an event loop."""
    deadline = time.monotonic() + scaled(timeout_s)
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the condition did not come true in {scaled(timeout_s)} s")
        time.sleep(_POLL_S)
    return value
