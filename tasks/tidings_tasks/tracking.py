"""When a loop over items reports progress: often enough to watch, seldom enough for a million items."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sized
from typing import Any, Generic, TypeVar

__all__ = ["AsyncTrack", "Tracker"]

T = TypeVar("T")

_QUIET_S = 1.0
_UNKNOWN_TOTAL_QUIET_S = 0.1


class Tracker:
    """Counts items, and says what progress to send before the next one.

    With a known total an event is due at every whole percent and at least each second; without one at most ten
    times a second. So a loop of up to 100 items sends one event an item.
    """

    def __init__(
        self,
        items: object,
        total: int | None,
        fields: dict[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = len(items) if total is None and isinstance(items, Sized) else total
        self._fields = fields
        self._clock = clock
        self._count = 0
        self._started = clock()
        self._sent: tuple[int, int | None, float] | None = None

    def count(self) -> None:
        """One more item was handed out."""
        self._count += 1

    def due(self) -> dict[str, Any] | None:
        """The progress to send now, all items so far being done, or None."""
        now = self._clock()
        percent = self._percent()
        whole = None if self._total is None else 100 * self._count // max(1, self._total)
        if self._sent is not None:
            count, sent_whole, at = self._sent
            quiet_s = _UNKNOWN_TOTAL_QUIET_S if whole is None else _QUIET_S
            if count == self._count or (whole == sent_whole and now - at < quiet_s):
                return None
        return self._event(now, percent, whole)

    def end(self) -> dict[str, Any] | None:
        """The progress to send when there are no more items, or None when it was sent."""
        if self._sent is not None and self._sent[0] == self._count and self._total == self._count:
            return None
        self._total = self._count
        return self._event(self._clock(), 100.0, 100)

    def _percent(self) -> float | None:
        if self._total is None:
            return None
        if self._count >= self._total:
            return 100.0
        # Not rounded up to 100 before the last item is done.
        return min(99.999, round(100 * self._count / self._total, 3))

    def _event(self, now: float, percent: float | None, whole: int | None) -> dict[str, Any]:
        self._sent = (self._count, whole, now)
        eta_s = None
        if self._total is not None and self._count:
            left = max(0, self._total - self._count)
            eta_s = round((now - self._started) / self._count * left, 3)
        return {
            "percent": percent,
            "current": self._count,
            "total": self._total,
            "eta_s": eta_s,
            **self._fields,
        }


class AsyncTrack(Generic[T]):
    """Hands out items and reports between them. Not an async generator: those need closing when a loop ends early."""

    def __init__(
        self,
        progress: Callable[..., Awaitable[None]],
        items: Iterable[T] | AsyncIterable[T],
        tracker: Tracker,
    ) -> None:
        self._progress, self._tracker = progress, tracker
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)

    def __aiter__(self) -> AsyncTrack[T]:
        return self

    async def __anext__(self) -> T:
        if (due := self._tracker.due()) is not None:
            await self._progress(**due)
        try:
            item = await anext(self._items) if isinstance(self._items, AsyncIterator) else next(self._items)
        except (StopIteration, StopAsyncIteration):
            if (due := self._tracker.end()) is not None:
                await self._progress(**due)
            raise StopAsyncIteration from None
        self._tracker.count()
        return item
