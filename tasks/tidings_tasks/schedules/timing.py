"""When a schedule is due: the next time, what was missed, and the runs to come. Pure; the clock is the store's."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol
from zoneinfo import ZoneInfo, available_timezones

__all__ = ["Interval", "Plan", "Timing", "find_zone", "jitter_ms", "next_runs", "plan_fire"]

MISSED_COUNTED = 1_000
"""Missed runs are counted up to here; beyond it the number tells nobody more."""


class Timing(Protocol):
    """Due times, in ms since the Unix epoch."""

    def next_after(self, ms: int) -> int | None:
        """Return the first one after ``ms``."""

    def last_at(self, ms: int) -> int | None:
        """Return the newest that is not after ``ms``."""


class Interval:
    """Every so many ms, counted from the Unix epoch: so an hour is due on the hour (UTC), whoever counts."""

    def __init__(self, every_ms: int) -> None:
        self._every_ms = every_ms

    def next_after(self, ms: int) -> int:
        """Return the first due time after ``ms``."""
        return (ms // self._every_ms + 1) * self._every_ms

    def last_at(self, ms: int) -> int:
        """Return the newest due time that is not after ``ms``."""
        return ms // self._every_ms * self._every_ms


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done at one moment: the due times to run, how many were missed, and when it is due again."""

    due: list[int]
    missed: int
    next_ms: int | None


def plan_fire(
    timing: Timing, expected_ms: int, now_ms: int, *, catch_up: str, limit: int, on_time_ms: int
) -> Plan:
    """Decide about all due times from ``expected_ms`` up to now.

    Args:
        expected_ms: the oldest due time that has not been run; not after ``now_ms``.
        catch_up: ``none`` runs the newest if it is not later than ``on_time_ms``; ``last`` the newest; ``all`` the newest ``limit``.
    """
    wanted = limit if catch_up == "all" else 1
    due: list[int] = []
    missed = 0
    at = timing.last_at(now_ms)
    # After a change of the expression or of the time zone's rules what was expected may be due no more; it still counts.
    while at is not None and at >= expected_ms and len(due) + missed < wanted + MISSED_COUNTED:
        if len(due) < wanted:
            due.append(at)
        else:
            missed += 1
        at = timing.last_at(at - 1)
    if catch_up == "none" and due and now_ms - due[0] > on_time_ms:
        missed += len(due)
        due = []
    return Plan(due[::-1], missed, timing.next_after(now_ms))


def next_runs(timing: Timing, after_ms: int) -> Iterator[int]:
    """Yield the due times after ``after_ms``, for as long as there are any."""
    at = timing.next_after(after_ms)
    while at is not None:
        yield at
        at = timing.next_after(at)


def jitter_ms(name: str, due_ms: int, most_ms: int) -> int:
    """Return how much later than due this run begins: from 0 to ``most_ms``, the same whoever asks."""
    digest = hashlib.blake2b(f"{name}\n{due_ms}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (most_ms + 1)


def find_zone(name: str) -> ZoneInfo:
    """Return a time zone of the IANA database.

    Raises:
        ValueError: there is none of this name; the message names one that looks alike.
    """
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        near = difflib.get_close_matches(name, available_timezones(), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else "; write one such as Europe/Berlin"
        raise ValueError(f"{name[:64]!r} is no IANA time zone{hint}") from None
