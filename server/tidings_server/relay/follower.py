"""A follower: a watcher that is asked for what is next. Long-poll and SSE read through it.

It keeps a bounded number of live entries. When a slow reader lets them pile up, they are dropped and the follower leaves
its topic; the next read goes to the log, which has them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tidings.protocol import Position
from tidings.protocol.errors import JobNotFound
from tidings_tasks.store import JobRecord

from .entry import Entry, Page
from .topic import PAGE_BYTES, PAGE_ENTRIES, Topic

__all__ = ["Batch", "FeedBatch", "FeedFollower", "Follower"]

_MAX_KEPT_ENTRIES = 256
_MAX_KEPT_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Batch:
    """What came next. ``reset`` is the snapshot to begin anew from; ``events`` apply after it.

    ``done``: the terminal event is at or before ``position``.
    """

    events: list[bytes]
    position: str
    done: bool
    reset: JobRecord | None = None


@dataclass(frozen=True, slots=True)
class FeedBatch:
    """What came next in a feed: (position or None for unnumbered progress, envelope)."""

    entries: list[tuple[str | None, bytes]]
    position: str
    reset: bool = False
    jobs: list[JobRecord] | None = None


@dataclass(slots=True)
class _Taken:
    entries: list[Entry] = field(default_factory=list)
    page: Page | None = None


class _Reader:
    """What job and feed followers share: live entries while they fit, the log otherwise."""

    def __init__(self, topic: Topic, after: Position) -> None:
        self._topic = topic
        self._at = after
        self._kept: list[Entry] = []
        self._kept_bytes = 0
        self._is_live = False
        self._woken = asyncio.Event()

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Keep live entries, or fall back to the log when there are too many."""
        self._kept.extend(entries)
        self._kept_bytes += sum(len(entry.text) for entry in entries)
        if len(self._kept) > _MAX_KEPT_ENTRIES or self._kept_bytes > _MAX_KEPT_BYTES:
            self._fall_back()
        self._woken.set()

    def reset(self, page: Page) -> None:
        """History forked behind this follower: the next read of the log will find out and say so."""
        self._fall_back()
        self._woken.set()

    def _fall_back(self) -> None:
        self._topic.leave(self)
        self._is_live = False
        self._kept, self._kept_bytes = [], 0

    async def _next(self, limit: int, wait_s: float) -> _Taken:
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            if self._kept:
                return _Taken(self._take(limit))
            if not self._is_live:
                page = await self._topic.source.read(
                    self._at, limit=min(limit, PAGE_ENTRIES), max_bytes=PAGE_BYTES
                )
                if page is None:
                    raise JobNotFound
                self._at = page.end
                ended = page.has_ended and self._at.seq >= page.head
                if not ended and self._topic.try_go_live(self, self._at):
                    self._is_live = True
                if ended or page.reset or page.entries or page.jobs is not None:
                    return _Taken(page.entries, page)
                if not self._is_live:
                    await self._topic.settle(self._at)
                continue
            self._woken.clear()
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return _Taken()
            try:
                async with asyncio.timeout(left):
                    await self._woken.wait()
            except TimeoutError:
                return _Taken()

    def _take(self, limit: int) -> list[Entry]:
        taken, self._kept = self._kept[:limit], self._kept[limit:]
        self._kept_bytes = sum(len(entry.text) for entry in self._kept)
        for entry in taken:
            if entry.seq:
                self._at = Position(entry.epoch, entry.seq)
        return taken


class Follower(_Reader):
    """Follows one job. Made by ``Relay.follow``; one reader at a time."""

    async def read(self, *, limit: int = PAGE_ENTRIES, wait_s: float = 0.0) -> Batch:
        """Return what is next, at once when there is something, else after at most ``wait_s`` seconds.

        Raises:
            JobNotFound: the job is not there (any more).
            StoreUnavailable: the log could not be read.
        """
        taken = await self._next(limit, wait_s)
        events = [entry.text for entry in taken.entries]
        page = taken.page
        if page is not None and page.reset:
            return Batch(events, str(self._at), page.has_ended, page.job)
        ended = bool(taken.entries) and taken.entries[-1].is_terminal
        if page is not None and page.has_ended and self._at.seq >= page.head:
            ended = True
        return Batch(events, str(self._at), ended)


class FeedFollower(_Reader):
    """Follows a feed. Made by ``Relay.follow_feed``; one reader at a time."""

    async def read(self, *, limit: int = PAGE_ENTRIES, wait_s: float = 0.0) -> FeedBatch:
        """Return what is next; the first batch from ``BEGINNING``, and one after a reset, is a snapshot."""
        taken = await self._next(limit, wait_s)
        entries = [(entry.position, entry.text) for entry in taken.entries]
        page = taken.page
        if page is None:
            return FeedBatch(entries, str(self._at))
        return FeedBatch(entries, str(self._at), page.reset, page.jobs)
