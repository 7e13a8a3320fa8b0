"""How hard a client tries: delays between attempts, and when a watch changes its transport."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Backoff", "WatchPolicy"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential delays with a cap; the upper half of each is random, so that clients don't return as one."""

    base_s: float = 0.25
    cap_s: float = 15.0

    def delay_s(self, failures: int, rng: Callable[[], float] = random.random) -> float:
        """Return how long to wait after this many failures in a row (0: not at all)."""
        if failures <= 0:
            return 0.0
        whole = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 30))
        return whole * (0.5 + 0.5 * rng())


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """How a watch holds on to its job.

    Attributes:
        failures_before_descent: Failures in a row of one transport before the next lower one is tried. A server
            that can't be reached at all does not count: the other transports go to the same place.
        stable_after_s: A connection that lasted this long clears the count of failures.
        probe_every_s: On a lower transport, how often a better one is tried (± 25 %).
        offline_timeout_s: How long a watch may be without any connection before it raises `ConnectionLost`.
        poll_wait_s: How long the server may hold a long-poll, 1–55.
        connect_timeout_s: Bound of one attempt to connect or to subscribe.
        silence_timeout_s: A stream that sends nothing for this long, heartbeats included, is taken for dead.
        max_buffered_events: Events held for a slow reader of one watch. Over it they are dropped and, when the
            reader gets there, asked for again from its position.
        backoff: Delays between attempts.
    """

    failures_before_descent: int = 3
    stable_after_s: float = 5.0
    probe_every_s: float = 15.0
    offline_timeout_s: float = 300.0
    poll_wait_s: float = 25.0
    connect_timeout_s: float = 10.0
    silence_timeout_s: float = 45.0
    max_buffered_events: int = 2_000
    backoff: Backoff = field(default_factory=Backoff)
