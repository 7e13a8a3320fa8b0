"""Calls on the store about queues and dependencies: limits, states, how they stand, purging. Pure; does no I/O.

Each is about one shard: limits are enforced, and queues counted, per shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from .command import Command
from .limits import Breaker, BreakerInfo, BreakerState, QueueInfo, QueueLimits, QueueState, Rate

__all__ = [
    "PurgePage",
    "configure",
    "list_queues",
    "purge_queue",
    "read_breakers",
    "read_queues",
    "set_queue_state",
]

_BREAKER_STATES = {
    "closed": BreakerState.CLOSED,
    "open": BreakerState.OPEN,
    "half": BreakerState.HALF_OPEN,
}


@dataclass(frozen=True, slots=True)
class PurgePage:
    """A page of a purge: how many jobs were found waiting, how many cancelled, and where to go on (None: the end)."""

    waiting: int
    cancelled: int
    next_id: str | None


def configure(
    shard: int,
    *,
    queues: Mapping[str, QueueLimits] = {},  # never changed
    dependencies: Mapping[str, Breaker] = {},
) -> Command[None]:
    """Set the limits of these queues and the numbers of these breakers, in place of those they had."""
    args: list[bytes | str | int] = []
    for name, limits in queues.items():
        args += (name, _encode_limits(limits))
    for name, breaker in dependencies.items():
        numbers = (breaker.failures, round(breaker.within_s * 1000), round(breaker.open_s * 1000))
        args += (f"~{name}", orjson.dumps(numbers))
    return Command("configure", shard, args, lambda _: None)


def set_queue_state(shard: int, queue: str, state: QueueState) -> Command[None]:
    """Pause a queue, let it drain, or set it going again. It is at once so for all workers and servers."""
    return Command("set_queue_state", shard, [queue, state.value], lambda _: None)


def list_queues(shard: int, *, limit: int = 1000) -> Command[list[str]]:
    """Read which queues have jobs waiting or running, or are paused or draining, whoever declared them."""

    def parse(reply: Any) -> list[str]:
        return sorted(name.decode() for name in reply)

    return Command("list_queues", shard, [limit], parse)


def read_queues(shard: int, names: Sequence[str]) -> Command[list[QueueInfo]]:
    """Read how queues stand, in the order of the names; one that nobody used yet is empty and active."""
    names = tuple(names)

    def parse(reply: Any) -> list[QueueInfo]:
        return [_read_queue(name, *row) for name, row in zip(names, reply, strict=True)]

    return Command("read_queues", shard, names, parse)


def purge_queue(
    shard: int, queue: str, *, by: bytes, after_id: str = "", limit: int = 500, dry_run: bool = False
) -> Command[PurgePage]:
    """Cancel the waiting jobs of a queue among ``limit`` open jobs, newest first; ``by`` is JSON.

    Args:
        after_id: ``next_id`` of the page before.
        dry_run: only count them.
    """

    def parse(reply: Any) -> PurgePage:
        waiting, cancelled, last = reply
        return PurgePage(waiting, cancelled, last.decode() or None)

    return Command("purge_queue", shard, [queue, by, after_id, limit, int(dry_run)], parse)


def read_breakers(shard: int) -> Command[list[BreakerInfo]]:
    """Read the circuits that are not closed, or that have counted failures."""

    def parse(reply: Any) -> list[BreakerInfo]:
        rows = [reply[at : at + 4] for at in range(0, len(reply), 4)]
        return [_read_breaker(*row) for row in sorted(rows)]

    return Command("read_breakers", shard, [], parse)


def _encode_limits(limits: QueueLimits) -> bytes:
    body: dict[str, Any] = {"ml": limits.max_length, "mr": limits.max_running}
    for name, rate in (("r", limits.rate), ("ro", limits.rate_per_owner), ("rg", limits.rate_per_org)):
        if rate is not None:
            body[name] = (rate.count, round(rate.per_s * 1000), rate.burst or rate.count)
    body = {name: value for name, value in body.items() if value is not None}
    return orjson.dumps(body) if body else b""


def _read_queue(
    name: str, state: bytes, queued: int, standing: int, running: int, until: bytes, limits: bytes
) -> QueueInfo:
    body = orjson.loads(limits) if limits else {}
    rates = {
        key: Rate(body[key][0], body[key][1] / 1000, body[key][2]) for key in ("r", "ro", "rg") if key in body
    }
    found = QueueLimits(body.get("ml"), body.get("mr"), rates.get("r"), rates.get("ro"), rates.get("rg"))
    until_ms = int(float(until)) or None
    return QueueInfo(
        name, QueueState(state.decode() or "active"), queued, queued - standing, running, until_ms, found
    )


def _read_breaker(name: bytes, state: bytes, failures: int, until: bytes) -> BreakerInfo:
    read = _BREAKER_STATES[state.decode()]
    until_ms = None if read is BreakerState.CLOSED else int(until)
    return BreakerInfo(name.decode(), read, failures, until_ms)
