"""A store whose calls heed a cancellation, which Python 3.11 may otherwise lose beneath them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from tidings_tasks.store import Command, Store

__all__ = ["HeedingStore"]

T = TypeVar("T")


class HeedingStore(Store):
    """The store for a server: a task that is cancelled while it waits for the store ends, whatever the library does.

    redis-py awaits ``asyncio.wait_for`` whenever it sends. In Python 3.11 that returns instead of raising when it is
    cancelled just as its future is done (https://github.com/python/cpython/issues/86296), and a loop that was told to
    end would go on for ever.
    """

    async def run(self, command: Command[T]) -> T:
        """Run a command; see ``Store.run``."""
        return await _heed(super().run(command))

    async def ping(self) -> None:
        """Raise ``StoreUnavailable`` unless the store answers."""
        await _heed(super().ping())

    async def publish(self, channel: str, payload: bytes) -> None:
        """Publish on a sharded channel; see ``Store.publish``."""
        await _heed(super().publish(channel, payload))


async def _heed(call: Awaitable[T]) -> T:
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    found = await call
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return found
