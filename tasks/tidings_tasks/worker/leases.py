"""Renews the leases of running jobs from a thread of its own, so that a busy event loop does not lose them."""

from __future__ import annotations

import asyncio
import logging
import threading

from tidings.protocol.errors import StoreUnavailable, TidingsError

from ..store import SyncStore, commands
from .crew import Crew

__all__ = ["LeaseKeeper"]

_log = logging.getLogger(__name__)

_BATCH = 1_000


class LeaseKeeper:
    """Renews every third of a lease. ``close`` ends the thread and its connections."""

    def __init__(self, store: SyncStore, crew: Crew, *, lease_s: float) -> None:
        self._store, self._crew = store, crew
        self._lease_s = lease_s
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tidings-leases", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def aclose(self) -> None:
        """End; waits for a renewal that is under way."""
        self._stopped.set()
        await asyncio.to_thread(self._thread.join, self._lease_s)
        self._store.close()

    def _run(self) -> None:
        while not self._stopped.wait(self._lease_s / 3):
            for shard in range(self._store.keyspace.shards):
                held = self._crew.held(shard)
                for start in range(0, len(held), _BATCH):
                    self._renew(shard, held[start : start + _BATCH])

    def _renew(self, shard: int, held: list[tuple[str, int]]) -> None:
        try:
            codes = self._store.run(commands.renew(shard, held, lease_ms=round(self._lease_s * 1000)))
        except StoreUnavailable as error:
            _log.debug("leases of shard %d are not renewed: %s", shard, error)
        except TidingsError:
            _log.exception("leases of shard %d are not renewed", shard)
        else:
            try:
                self._loop.call_soon_threadsafe(self._crew.renewed, shard, held, codes)
            except RuntimeError:
                return  # the loop is closed
