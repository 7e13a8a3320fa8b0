"""When there was a worker at all: on a machine with too much to do all of them may be starting at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Presence"]

_FOREVER_MS = 1 << 62


class Presence:
    """Knows, from a history's entries, when at least one worker took jobs."""

    def __init__(self, by_what: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        begins = [
            (e["worker"], e["at_ms"])
            for what in ("worker_ready", "worker_thawed")
            for e in by_what.get(what, ())
        ]
        ends = [
            (e["worker"], e["killed_ms"])
            for what in ("worker_killed", "worker_frozen")
            for e in by_what.get(what, ())
        ]
        spans = []
        for worker, begin in begins:
            after = [end for name, end in ends if name == worker and end >= begin]
            spans.append((begin, min(after, default=_FOREVER_MS)))
        self._spans: list[tuple[int, int]] = []
        for begin, end in sorted(spans):
            if self._spans and begin <= self._spans[-1][1]:
                self._spans[-1] = (self._spans[-1][0], max(end, self._spans[-1][1]))
            else:
                self._spans.append((begin, end))

    def absent_ms(self, begin: int, end: int) -> int:
        """For how long of a time there was no worker."""
        present = sum(max(0, min(end, until) - max(begin, since)) for since, until in self._spans)
        return max(0, end - begin) - present
