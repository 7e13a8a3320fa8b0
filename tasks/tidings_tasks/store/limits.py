"""What bounds a queue and a dependency, and how they stand: plain values, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Breaker", "BreakerInfo", "BreakerState", "QueueInfo", "QueueLimits", "QueueState", "Rate"]

_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3_600.0, "day": 86_400.0}
_TEXT = re.compile(r"([0-9]+)\s*/\s*([a-z]+)")
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` job starts in ``per_s`` seconds, of which ``burst`` (default: ``count``) may come at once."""

    count: int
    per_s: float
    burst: int | None = None

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read ``"20/s"``, ``"10/min"``, ``"100/h"`` or ``"1000/day"``.

        Raises:
            ValueError: it is none of these; the message says how to write it.
        """
        match = _TEXT.fullmatch(text.strip().lower())
        if match is None or match[2] not in _UNITS_S or not 1 <= int(match[1][:9]) <= _MOST:
            raise ValueError(f'write a number from 1 to {_MOST} per s, min, h or day, such as "10/min"')
        return cls(int(match[1]), _UNITS_S[match[2]])

    def __str__(self) -> str:
        """Return the text that ``parse`` reads, where there is one."""
        unit = next((name for name, seconds in _UNITS_S.items() if seconds == self.per_s), None)
        return f"{self.count}/{unit or f'{self.per_s:g}s'}"


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What the store enforces for a queue; None: no limit, or for ``max_length`` the usual one.

    ``max_running`` counts the jobs that run at once on all workers. The rates count job starts: of the queue, of each
    owner and of each org in it.
    """

    max_length: int | None = None
    max_running: int | None = None
    rate: Rate | None = None
    rate_per_owner: Rate | None = None
    rate_per_org: Rate | None = None


@dataclass(frozen=True, slots=True)
class Breaker:
    """When the circuit of a dependency opens: so many ``failures`` within ``within_s``.

    It stays open for ``open_s``; each trial that fails doubles that, up to ten times as long.
    """

    failures: int = 5
    within_s: float = 60.0
    open_s: float = 30.0


class QueueState(StrEnum):
    """``paused``: jobs wait. ``draining``: jobs run, new ones are refused."""

    ACTIVE = "active"
    PAUSED = "paused"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """How a queue of one shard stands. ``parked`` of the ``queued`` ones wait for a limit or a circuit.

    ``rate_limited_until_ms`` is store time, None while the queue's own rate lets jobs through.
    """

    name: str
    state: QueueState
    queued: int
    parked: int
    running: int
    rate_limited_until_ms: int | None
    limits: QueueLimits


class BreakerState(StrEnum):
    """``half_open``: one job is let through as a trial."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerInfo:
    """How the circuit of a dependency stands in one shard. ``open_until_ms`` is store time, None while it is closed."""

    name: str
    state: BreakerState
    failures: int
    open_until_ms: int | None
