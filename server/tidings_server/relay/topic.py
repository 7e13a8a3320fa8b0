"""A topic: one log that somebody watches. Live messages, gap fill and joining, so that each watcher sees it exactly once.

The rules, in the order in which they matter:

1. ``head`` is the newest entry that was delivered to the live watchers. Nothing is delivered to them but ``head + 1`` (or an
   entry whose ``prev`` says that it follows on ``head``), so they see the log in order.
2. A message that follows on ``head`` is delivered; an older one is dropped; anything else starts the filler, which reads the
   log from ``head`` until there is no more. While it runs, messages are only noted.
3. A joining watcher reads the log by itself. It becomes live in one step without an await, when it stands exactly at
   ``head``. When it has read further than ``head``, the filler brings the others up to it first.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from tidings.protocol import Position, accepts
from tidings.protocol.errors import StoreUnavailable

from .entry import Entry, Page, Source, Watcher

__all__ = ["PAGE_BYTES", "PAGE_ENTRIES", "Topic"]

_log = logging.getLogger(__name__)

PAGE_ENTRIES = 1000
PAGE_BYTES = 262_144
_RETRY_S = (0.1, 2.0)


class Topic:
    """One watched log. Made and ended by the relay, which also subscribes its channel."""

    def __init__(self, source: Source, confirmed: Callable[[], asyncio.Future[None]]) -> None:
        self.source = source
        self.users = 0
        self.head: Position | None = None
        self._noted = 0
        self._news = False
        self._live: dict[Watcher, None] = {}
        self._filler: asyncio.Task[None] | None = None
        self._confirmed = confirmed
        self.has_ended = False

    async def wait_confirmed(self, timeout_s: float) -> None:
        """Wait until the channel is subscribed, so that nothing published from now on is missed.

        Raises:
            StoreUnavailable: it took too long.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._confirmed())
        except TimeoutError:
            raise StoreUnavailable(
                "the job store does not confirm the subscription", retry_after_s=2
            ) from None

    def hear(self, payload: bytes) -> None:
        """Take a message of the channel."""
        entry = self.source.parse(payload)
        if entry is None:
            _log.error("a message on %r is no envelope; somebody else publishes there", self.source.channel)
            return
        if entry.seq == 0:
            self._deliver_unnumbered(entry)
            return
        head = self.head
        if head is None or self._filler is not None:
            self._noted = max(self._noted, entry.seq)
            self._news = True
        elif entry.epoch == head.epoch and accepts(head.seq, seq=entry.seq, prev=entry.prev):
            self._deliver([entry])
        elif entry.epoch != head.epoch or entry.seq > head.seq:
            self.refill()

    def try_go_live(self, watcher: Watcher, at: Position) -> bool:
        """Make a watcher live that has everything up to ``at``. No await may lie between this and what it saw last.

        Returns:
            False when there is more to read first.
        """
        if self.has_ended:
            return False
        if self.head is None:
            if self._noted > at.seq:
                return False
            self.head = at
        elif self._filler is not None or self.head != at:
            return False
        self._live[watcher] = None
        return True

    def leave(self, watcher: Watcher) -> None:
        """Deliver nothing more to a watcher. It may join again."""
        self._live.pop(watcher, None)

    def refill(self) -> None:
        """Compare with the log, and deliver what is missing."""
        self._news = True
        if self.head is not None and self._filler is None:
            self._filler = asyncio.create_task(
                self._fill(), name=f"relay-fill {self.source.channel.decode()}"
            )
            self._filler.add_done_callback(self._filled)

    async def settle(self, at: Position) -> None:
        """Bring the live watchers up to what a joining one has read, or wait until that has been done.

        What was noted before anybody was live is forgotten: the read that comes next is younger, and knows better.
        """
        if self.head is None:
            self._noted = 0
        if self._filler is None and self.head is not None and self.head != at:
            self.refill()
        if self._filler is not None:
            await asyncio.shield(self._filler)

    def stop(self) -> asyncio.Task[None] | None:
        """Stop filling; nobody watches any more. Returns the filler that is ending, to be awaited before the store closes."""
        self._live.clear()
        self._news = False
        if self._filler is not None:
            self._filler.cancel()
        return self._filler

    def _deliver(self, entries: list[Entry]) -> None:
        last = entries[-1]
        self.head = Position(last.epoch, last.seq)
        if last.is_terminal and self.source.ends_with_terminal:
            self.has_ended = True
        for watcher in list(self._live):
            watcher.deliver(entries)

    def _deliver_unnumbered(self, entry: Entry) -> None:
        for watcher in list(self._live):
            watcher.deliver([entry])

    def _filled(self, task: asyncio.Task[None]) -> None:
        self._filler = None
        if not task.cancelled() and task.exception() is not None:
            _log.error("a topic could not be filled", exc_info=task.exception())
        elif not task.cancelled() and self._news and not self.has_ended:
            self.refill()

    async def _fill(self) -> None:
        delay = _RETRY_S[0]
        while self._live or self._news:
            self._news = False
            assert self.head is not None
            try:
                page = await self.source.read(self.head, limit=PAGE_ENTRIES, max_bytes=PAGE_BYTES)
            except StoreUnavailable:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, _RETRY_S[1])
                self._news = True
                continue
            delay = _RETRY_S[0]
            if page is None or page.reset:
                self._reset(page)
                return
            if page.entries:
                self._deliver(page.entries)
                self._news = True
            else:
                self.head = page.end
            if not self._news:
                return

    def _reset(self, page: Page | None) -> None:
        gone = page or Page("", 0, reset=True, entries=[])
        self.head = gone.end
        self.has_ended = page is None or page.has_ended
        for watcher in list(self._live):
            watcher.reset(gone)
