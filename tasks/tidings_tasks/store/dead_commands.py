"""Calls on the store about dead letters: jobs that failed for good, in groups of errors that look the same. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from .command import Command
from .record import JobRecord

__all__ = ["DeadGroup", "DeadPage", "list_dead", "read_dead_groups", "release_dead"]

_PLACE = re.compile(r"([0-9]{1,15}):([0-9A-Zs]{1,64})")


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """The dead letters of one queue whose errors look the same. Times are store ms; ``message`` is the first one's.

    A store keeps 1,000 groups; what comes beyond them is in ``other`` of its queue, without type and code.
    """

    fingerprint: str
    queue: str
    type: str
    code: str
    error_type: str
    message: str
    count: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class DeadPage:
    """Dead letters, the latest first; ``next`` goes on behind them, None at the end. A page may be short before it."""

    jobs: list[JobRecord]
    next: str | None


def read_dead_groups(shard: int) -> Command[list[DeadGroup]]:
    """Read the groups of a shard, those with the latest dead letter first."""

    def parse(reply: Any) -> list[DeadGroup]:
        groups = [_read_group(*row) for row in reply]
        return sorted(groups, key=lambda group: group.last_ms, reverse=True)

    return Command("read_dead_groups", shard, [], parse)


def list_dead(
    shard: int, *, queue: str = "", type: str = "", fingerprint: str = "", after: str = "", limit: int = 50
) -> Command[DeadPage]:
    """Read dead letters that pass every filter given; ``after`` is ``next`` of the page before.

    Raises:
        ValueError: ``after`` is not of that form.
    """
    place = _PLACE.fullmatch(after)
    if after and place is None:
        raise ValueError("not a place in the dead letters")
    ms, job_id = place.groups() if place else ("", "")

    def parse(reply: Any) -> DeadPage:
        jobs = [JobRecord.from_parts(parts) for parts in reply[0]]
        goes_on = len(reply) > 1 and reply[1]
        return DeadPage(jobs, f"{int(float(reply[1]))}:{reply[2].decode()}" if goes_on else None)

    return Command("list_dead", shard, [queue, type, fingerprint, ms, job_id, limit], parse)


def release_dead(shard: int, job_ids: Sequence[str]) -> Command[list[str]]:
    """Take jobs out of the dead letters; they stay failed. Returns those that were among them."""
    return Command("release_dead", shard, job_ids, lambda reply: [found.decode() for found in reply])


def _read_group(name: bytes, common: bytes, count: int, first: bytes, last: bytes) -> DeadGroup:
    fingerprint, _, queue = name.decode().partition(":")
    body = orjson.loads(common)
    return DeadGroup(
        fingerprint,
        queue,
        body["type"],
        body["code"],
        body["error_type"],
        body["message"],
        count,
        int(float(first)),
        int(float(last)),
    )
