"""What the relay handles: undecoded log entries, pages of them, and the sources they are read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tidings.protocol import BEGINNING, Position
from tidings.protocol.events import ENVELOPE_HEAD
from tidings_tasks.store import JobRecord, Store, commands

__all__ = ["Entry", "FeedSource", "JobSource", "Page", "Source", "Watcher"]

_TERMINAL = frozenset({b"completed", b"failed", b"cancelled"})


class Entry:
    """One entry of a log. ``text`` is the envelope as the store keeps it; ``packet`` is a slot for its encoded frame.

    For a job, ``epoch`` and ``seq`` are the event's own; for a feed they are the feed's, and ``seq`` 0 marks an entry that
    the feed does not number.
    """

    __slots__ = ("epoch", "is_terminal", "job_id", "kind", "packet", "prev", "seq", "text")

    def __init__(self, text: bytes, job_id: str, epoch: str, seq: int, prev: int | None, kind: bytes) -> None:
        self.text = text
        self.job_id = job_id
        self.epoch = epoch
        self.seq = seq
        self.prev = prev
        self.kind = kind.decode()
        self.is_terminal = kind in _TERMINAL
        self.packet: Any = None

    @property
    def position(self) -> str | None:
        """The position of a receiver that has applied this entry; None for an entry without a number."""
        return f"{self.epoch}:{self.seq}" if self.seq else None


@dataclass(frozen=True, slots=True)
class Page:
    """What a source answered: entries behind a position, or a reset with a snapshot and what applies after it."""

    epoch: str
    head: int
    reset: bool
    entries: list[Entry]
    job: JobRecord | None = None
    jobs: list[JobRecord] | None = None
    has_ended: bool = False

    @property
    def end(self) -> Position:
        """The position behind the page's last entry, or of its head when it has none to give."""
        if self.entries and not self.reset:
            return Position(self.entries[-1].epoch, self.entries[-1].seq)
        return Position(self.epoch, self.head)

    @property
    def base(self) -> str:
        """The position on which the first entry follows; of the head when there is none."""
        if not self.entries:
            return str(self.end)
        first = self.entries[0]
        return f"{first.epoch}:{first.seq - 1 if first.prev is None else first.prev}"


class Watcher(Protocol):
    """Who is told. Neither call may block or raise; a watcher that cannot keep up says so to its topic by leaving."""

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Take entries, each following on what was delivered before."""

    def reset(self, page: Page) -> None:
        """Begin anew from the page's snapshot: history forked behind what was delivered, or the log is gone."""


class Source(Protocol):
    """A log in the store, and the channel that hints at its news."""

    ends_with_terminal: bool
    """Whether a terminal event is the last entry: so in a job's log, not in a feed."""

    @property
    def channel(self) -> bytes:
        """The sharded channel's name."""

    def parse(self, payload: bytes) -> Entry | None:
        """Read a message of the channel; None when it is none of ours."""

    async def read(self, after: Position, *, limit: int, max_bytes: int) -> Page | None:
        """Read behind a position; None when the log does not exist (any more)."""


class JobSource:
    """A job's log."""

    ends_with_terminal = True

    def __init__(self, store: Store, shard: int, job_id: str) -> None:
        self._store = store
        self.job_id = job_id
        self.shard = shard
        self.channel = store.keyspace.job_channel(shard, job_id).encode()

    def parse(self, payload: bytes) -> Entry | None:
        """Read a published envelope."""
        match = ENVELOPE_HEAD.match(payload)
        if match is None:
            return None
        _, epoch, seq, prev, kind = match.groups()
        return Entry(
            payload, self.job_id, epoch.decode(), int(seq), None if prev is None else int(prev), kind
        )

    async def read(
        self, after: Position, *, limit: int, max_bytes: int, with_job: bool = False
    ) -> Page | None:
        """Read a page of the log."""
        found = await self._store.run(
            commands.read_events(self.job_id, after, limit=limit, max_bytes=max_bytes, with_job=with_job)
        )
        if found is None:
            return None
        entries = [entry for text in found.events if (entry := self.parse(text)) is not None]
        return Page(
            found.epoch, found.head, found.reset, entries, found.job, has_ended=found.state.is_terminal
        )


class FeedSource:
    """A feed's log. Its messages and entries are envelopes; the feed's own numbers come beside them."""

    ends_with_terminal = False

    def __init__(self, store: Store, shard: int, feed: str) -> None:
        self._store = store
        self._shard = shard
        self.feed = feed
        self.channel = store.keyspace.feed_channel(shard, feed).encode()

    def parse(self, payload: bytes) -> Entry | None:
        """Read ``<position or ->\\n<envelope>``."""
        head, _, text = payload.partition(b"\n")
        if head == b"-":
            return self._entry(text, "", 0)
        epoch, _, seq = head.decode().rpartition(":")
        return self._entry(text, epoch, int(seq))

    async def read(self, after: Position, *, limit: int, max_bytes: int) -> Page:
        """Read a page of the feed; from ``BEGINNING``, its newest open jobs."""
        found = await self._store.run(commands.read_feed(self._shard, self.feed, after, limit=limit))
        entries = []
        for number, text in enumerate(found.events, found.first_seq):
            entry = self._entry(text, found.epoch, number)
            if entry is not None:
                entries.append(entry)
        reset = found.reset and after != BEGINNING
        return Page(found.epoch, found.head, reset, entries, jobs=found.jobs)

    @staticmethod
    def _entry(text: bytes, epoch: str, seq: int) -> Entry | None:
        match = ENVELOPE_HEAD.match(text)
        return None if match is None else Entry(text, match[1].decode(), epoch, seq, None, match[5])
