"""What one watch has received over the shared socket and not yet read: ordered, bounded, ended with a reason."""

from __future__ import annotations

import asyncio
from collections import deque

from ..cursor import Batch, Gap
from ..protocol.errors import TidingsError

__all__ = ["Inbox"]


class Inbox:
    """Batches of one job for one reader.

    Until the subscription is answered, events are held back behind the answer. At the bound everything is
    dropped and the reader is told of a gap, whereupon it asks again from its position.
    """

    def __init__(self, job_id: str, max_events: int) -> None:
        self.job_id = job_id
        self._max_events = max_events
        self._ready: deque[Batch] = deque()
        self._held: deque[Batch] | None = deque()
        self._events = 0
        self._stirred = asyncio.Event()
        self._end: TidingsError | Gap | None = None

    def put(self, batch: Batch) -> None:
        """Add what arrived on the wire."""
        if self._end is not None:
            return
        self._events += len(batch.events)
        if self._events > self._max_events:
            self._ready.clear()
            self._held = None
            self.end(Gap())
        elif self._held is not None:
            self._held.append(batch)
        else:
            self._ready.append(batch)
            self._stirred.set()

    def answer(self, batch: Batch) -> None:
        """Add the answer to the subscription, before everything that arrived while it was awaited."""
        self._ready.append(batch)
        self._events += len(batch.events)
        if self._held is not None:
            self._ready.extend(self._held)
            self._held = None
        self._stirred.set()

    def end(self, error: TidingsError | Gap) -> None:
        """Let the reader have what is there, then ``error``. The first end counts."""
        if self._end is None:
            self._end = error
            self._stirred.set()

    async def next(self) -> Batch:
        """Return the next batch, waiting for it without a limit: the connection's heartbeat ends a dead one.

        Raises:
            TidingsError, Gap: what `end` was given, when nothing is left.
        """
        while not self._ready:
            if self._end is not None:
                raise self._end
            self._stirred.clear()
            await self._stirred.wait()
        batch = self._ready.popleft()
        self._events -= len(batch.events)
        return batch
