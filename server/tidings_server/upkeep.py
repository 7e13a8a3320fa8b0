"""Upkeep: due jobs, lapsed leases and retention move on even where no worker runs."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets

from tidings.protocol.errors import StoreUnavailable
from tidings_tasks.store import Store, commands

__all__ = ["Upkeep"]

_log = logging.getLogger(__name__)

_EVERY_S = 1.0
_LEAST_PAUSE_S = 0.05


class Upkeep:
    """Steps through all shards about once a second, sooner when something falls due. Start it; close it with ``aclose``."""

    def __init__(self, store: Store, *, lease_s: float) -> None:
        self._store = store
        self._lease_ms = int(lease_s * 1000)
        self._name = f"upkeep-{secrets.token_hex(6)}"
        self._calls = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []
        self.failures = 0
        """How many steps failed since the start."""

    def start(self) -> None:
        """Begin, with one task for all shards."""
        self._tasks = [asyncio.create_task(self._run(), name="upkeep")]

    async def aclose(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        is_failing = False
        while True:
            pause_s = _EVERY_S
            for shard in range(self._store.keyspace.shards):
                try:
                    pause_s = min(pause_s, await self._step(shard))
                    is_failing = False
                except StoreUnavailable as error:
                    self.failures += 1
                    if not is_failing:
                        _log.warning("upkeep waits for the store: %s", error)
                    is_failing = True
                    break
                except Exception:
                    self.failures += 1
                    _log.exception("upkeep of shard %d failed", shard)
            await asyncio.sleep(max(pause_s, _LEAST_PAUSE_S))

    async def _step(self, shard: int) -> float:
        reply = await self._store.run(
            commands.step(shard, worker=self._name, call=next(self._calls), lease_ms=self._lease_ms)
        )
        return _EVERY_S if reply.next_due_ms is None else reply.next_due_ms / 1000
