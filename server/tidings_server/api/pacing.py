"""Pacing of a feed: numbered entries at once, of each job's progress the latest, at most twice a second (contract §5)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tidings.protocol import read_head

__all__ = ["Pacer"]

_PAUSE_S = 0.5

FeedEntry = tuple[str | None, bytes]
"""Position, or None for progress, which a feed does not number; and the envelope."""


class Pacer:
    """Holds progress back until its time has come. Bounded by the jobs that progress within half a second."""

    def __init__(self) -> None:
        self._latest: dict[str, FeedEntry] = {}
        self._due_at = 0.0

    def take(self, entries: Sequence[FeedEntry]) -> list[FeedEntry]:
        """Add what the feed brought; return what is to be sent now, in order."""
        ready: list[FeedEntry] = []
        for entry in entries:
            job_id = read_head(entry[1]).job_id
            if entry[0] is not None:
                self._latest.pop(job_id, None)
                ready.append(entry)
            else:
                if not self._latest:
                    self._due_at = _now() + _PAUSE_S
                self._latest[job_id] = entry
        if self._latest and _now() >= self._due_at:
            ready.extend(self._latest.values())
            self._latest.clear()
        return ready

    def pause_s(self, longest_s: float) -> float:
        """Return how long to wait for more: until held progress is due, at most ``longest_s``."""
        return max(0.0, min(longest_s, self._due_at - _now())) if self._latest else longest_s


def _now() -> float:
    return asyncio.get_running_loop().time()
