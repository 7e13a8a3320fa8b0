"""How a worker does: whether it is alive, whether it takes jobs, and the numbers behind both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tidings

from ..heartbeat import Role, Tally
from ..usage import rss_bytes
from .crew import Crew
from .lane import Lane
from .leases import LeaseKeeper
from .metrics import Metrics
from .processes import Processes
from .threads import Threads

__all__ = ["Condition"]

_LONG_S = 30.0
_LONG_LEASES = 5
# While the store itself is away a restart mends nothing; but a worker that is deaf for so long may have a fault of its own.
_VERY_LONG_S = 300.0


@dataclass(frozen=True, slots=True)
class Condition:
    """The parts of a worker, looked at on its loop."""

    role: Role
    crew: Crew
    lanes: Sequence[Lane]
    leases: LeaseKeeper
    threads: Threads
    processes: Processes
    tally: Tally
    metrics: Metrics
    lag_s: Callable[[], float]
    """By how much the event loop was late, lately."""

    def why_not_live(self) -> list[str]:
        """Return what a restart would mend. That this is called at all shows that the loop runs."""
        silent_s = self.leases.silent_s
        long_s = max(_LONG_S, _LONG_LEASES * self.leases.lease_s)
        if (silent_s > long_s and self._has_store) or silent_s > max(_VERY_LONG_S, 2 * long_s):
            return ["leases_not_renewed"]
        return []

    def why_not_ready(self) -> list[str]:
        """Return why no jobs are taken."""
        reasons = self.why_not_live()
        if self.crew.is_stopping:
            reasons.append("stopping")
        if not self._has_store:
            reasons.append("store_unavailable")
        return reasons

    def facts(self) -> dict[str, Any]:
        """Return how the worker does, in numbers. No input, no owner, no secret."""
        role = self.role
        return {
            "version": tidings.__version__,
            "worker": role.name,
            "profile": role.profile,
            "queues": list(role.queues),
            "uptime_s": round(time.time() - role.started_ms / 1000, 3),
            "concurrency": role.concurrency,
            "running": self.crew.running,
            "done": self.tally.done,
            "failed": self.tally.failed,
            "rss_bytes": rss_bytes(),
            "loop_lag_s": round(self.lag_s(), 3),
            "leases_renewed_ago_s": round(self.leases.silent_s, 3),
            "waiting_writes": self._waiting_writes,
            "stuck_threads": self.threads.stuck,
            "processes": len(self.processes.pids),
            "processes_died": self.processes.died,
        }

    def update_gauges(self) -> None:
        """Bring the gauges up to date."""
        metrics = self.metrics
        metrics.running.set(self.crew.running)
        metrics.stuck_threads.set(self.threads.stuck)
        metrics.processes.set(len(self.processes.pids))
        metrics.processes_died.set(self.processes.died)
        metrics.waiting_writes.set(self._waiting_writes)
        metrics.rss_bytes.set(rss_bytes())
        metrics.loop_lag_seconds.set(self.lag_s())

    @property
    def _has_store(self) -> bool:
        return all(lane.has_store for lane in self.lanes)

    @property
    def _waiting_writes(self) -> int:
        return sum(lane.outbox.waiting[0] for lane in self.lanes)
