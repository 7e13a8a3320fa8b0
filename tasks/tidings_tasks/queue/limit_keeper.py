"""Keeps what is declared of queues and dependencies in the store, which enforces it for all workers and servers."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable

from tidings.protocol.errors import StoreUnavailable

from ..settings import Settings
from ..store import Store, commands
from ..store.limits import QueueLimits
from .dependencies import breakers_of
from .queues import limits_of

__all__ = ["LimitKeeper"]

_log = logging.getLogger(__name__)

_LEAST_BACKOFF_S, _MOST_BACKOFF_S = 0.1, 2.0
_LOOK_EVERY_S = 30.0


class LimitKeeper:
    """Writes the limits once at the start, and again into a store that has lost them.

    Processes of different settings don't undo each other's: the last one that was started is right.

    Args:
        dependencies: those that job types name; they have the usual breaker where none is declared.
    """

    def __init__(self, store: Store, settings: Settings, dependencies: Iterable[str] = ()) -> None:
        self._store = store
        self._limits = limits_of(settings.queues)
        self._breakers = breakers_of(settings.dependencies, dependencies)
        self._limited = [name for name, limits in self._limits.items() if limits != QueueLimits()]

    async def write(self, shard: int) -> None:
        """Write the limits of a shard; while the store is away, wait for it.

        Raises:
            StoreMismatch: the store belongs to another installation.
        """
        backoff_s = _LEAST_BACKOFF_S
        while True:
            try:
                await self._store.run(
                    commands.configure(shard, queues=self._limits, dependencies=self._breakers)
                )
                return
            except StoreUnavailable as error:
                if backoff_s == _LEAST_BACKOFF_S:
                    _log.warning("the limits of shard %d wait for the store: %s", shard, error)
            await asyncio.sleep(random.uniform(_LEAST_BACKOFF_S, backoff_s))
            backoff_s = min(_MOST_BACKOFF_S, backoff_s * 2)

    async def watch(self, *, every_s: float = _LOOK_EVERY_S) -> None:
        """Look now and then whether the store still has limits, as one that was emptied has not. Never returns."""
        while True:
            await asyncio.sleep(every_s)
            for shard in range(self._store.keyspace.shards):
                try:
                    if self._limited and not await self._has_limits(shard):
                        _log.warning("the store has lost the limits of shard %d; writing them again", shard)
                        await self.write(shard)
                except StoreUnavailable:
                    continue  # the next look comes

    async def run(self) -> None:
        """Write the limits of all shards, then watch them. Never returns."""
        for shard in range(self._store.keyspace.shards):
            await self.write(shard)
        await self.watch()

    async def _has_limits(self, shard: int) -> bool:
        found = await self._store.run(commands.read_queues(shard, self._limited))
        return any(queue.limits != QueueLimits() for queue in found)
