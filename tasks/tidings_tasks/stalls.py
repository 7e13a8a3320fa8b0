"""Notices that the whole process stood still: a thread that meant to sleep for a while and woke much later saw it happen.

So it is where the processor is taken away between requests (Cloud Run), where a machine is suspended, or has far too much
to do. Leases lapse meanwhile, and other workers take the jobs; nothing else tells the reason.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

__all__ = ["CloudRun", "StallWatch", "find_cloud_run"]

_log = logging.getLogger(__name__)

# The container runtime contract of Cloud Run: which variable is set says what the container runs as.
_VARIABLES: Final = {
    "CLOUD_RUN_WORKER_POOL": "worker pool",
    "CLOUD_RUN_JOB": "job",
    "K_SERVICE": "service",
}
_CURE = {
    "service": "run the worker as a Cloud Run worker pool, or with CPU always allocated: docs/deploy.md",
    "": "give the machine more room, the worker fewer jobs at once, or raise TIDINGS_LEASE_S",
}


class CloudRun(Enum):
    """What a container runs as on Cloud Run. Only a service has its CPU throttled, between requests."""

    SERVICE = "service"
    JOB = "job"
    WORKER_POOL = "worker pool"


def find_cloud_run(environ: Mapping[str, str]) -> CloudRun | None:
    """Say what this process runs as; None: not on Cloud Run, as far as its environment tells."""
    found = next((kind for name, kind in _VARIABLES.items() if environ.get(name)), None)
    return None if found is None else CloudRun(found)


def _now() -> float:
    # Unlike the monotonic clock of Linux it goes on while the machine is suspended, as leases do.
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class StallWatch:
    """One thread calls ``sleeps`` before it waits, and ``woke`` after it.

    Args:
        lease_s: what is at stake: a stall of more than half of it is told.
        on_stall: called with the stall's length, seconds, in that thread.
        cloud_run: what the process runs as, for what the message advises.
        now: a clock that never goes back, seconds.
    """

    def __init__(
        self,
        lease_s: float,
        on_stall: Callable[[float], None],
        *,
        cloud_run: CloudRun | None = None,
        now: Callable[[], float] = _now,
    ) -> None:
        self._lease_s, self._on_stall, self._now = lease_s, on_stall, now
        self._is_service = cloud_run is CloudRun.SERVICE
        self._cure = _CURE["service" if self._is_service else ""]
        self._due = now()

    def tell_risk(self) -> None:
        """Warn at the start of a worker, where stalls are to be expected."""
        if self._is_service:
            _log.warning(
                "this is a Cloud Run service: unless its CPU is always allocated, the worker loses its jobs between requests; %s",
                self._cure,
            )

    def sleeps(self, pause_s: float) -> None:
        """The thread is going to wait for so long at most."""
        self._due = self._now() + pause_s

    def woke(self) -> None:
        """The thread goes on; it may have been woken early."""
        stall_s = self._now() - self._due
        if stall_s > self._lease_s / 2:
            self._on_stall(stall_s)
            _log.warning(
                "this process stood still for %.1f s; leases last %g s, so its jobs may have been given to other workers: %s",
                stall_s,
                self._lease_s,
                self._cure,
            )
