"""A server process's life: since when it runs, and whether it is ending."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Life"]


class Life:
    """Set once: a server that has begun to drain never goes back."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._started_at = now()
        self.is_draining = False

    @property
    def uptime_s(self) -> float:
        """Seconds since the server began."""
        return self._now() - self._started_at

    def begin_drain(self) -> None:
        """From now on the server is not ready, and takes no new streams."""
        self.is_draining = True
