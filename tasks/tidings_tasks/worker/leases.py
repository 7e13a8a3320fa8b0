"""Renews the leases of running jobs from a thread of its own, so that a busy event loop does not lose them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time

from tidings.protocol.errors import StoreUnavailable

from ..stalls import StallWatch
from ..store import SyncStore, commands
from .crew import Crew

__all__ = ["LeaseKeeper"]

_log = logging.getLogger(__name__)

_BATCH = 1_000


class LeaseKeeper:
    """Renews every third of a lease. ``close`` ends the thread and its connections."""

    def __init__(self, store: SyncStore, crew: Crew, *, lease_s: float, stalls: StallWatch) -> None:
        self._store, self._crew = store, crew
        self.lease_s = lease_s
        self._renewed_at = time.monotonic()
        self._stalls = stalls
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tidings-leases", daemon=True)

    @property
    def silent_s(self) -> float:
        """Since when not all leases could be renewed, seconds; with none held, since when the thread did not run."""
        return time.monotonic() - self._renewed_at

    def start(self) -> None:
        """Begin."""
        self._stalls.tell_risk()
        self._thread.start()

    async def aclose(self) -> None:
        """End; waits for a renewal that is under way."""
        self._stopped.set()
        await asyncio.to_thread(self._thread.join, self.lease_s)
        self._store.close()

    def _run(self) -> None:
        pause_s = self.lease_s / 3
        while True:
            self._stalls.sleeps(pause_s)
            is_over = self._stopped.wait(pause_s)
            self._stalls.woke()
            if is_over:
                return
            is_whole = True
            for shard in range(self._store.keyspace.shards):
                held = self._crew.held(shard)
                for start in range(0, len(held), _BATCH):
                    is_whole = self._renew(shard, held[start : start + _BATCH]) and is_whole
            if is_whole:
                self._renewed_at = time.monotonic()

    def _renew(self, shard: int, held: list[tuple[str, int]]) -> bool:
        try:
            codes = self._store.run(commands.renew(shard, held, lease_ms=round(self.lease_s * 1000)))
        except StoreUnavailable as error:
            _log.debug("leases of shard %d are not renewed: %s", shard, error)
        except Exception:  # whatever it was: without this thread the worker loses all its jobs
            _log.exception("leases of shard %d are not renewed", shard)
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._crew.renewed, shard, held, codes)
            return True
        return False
