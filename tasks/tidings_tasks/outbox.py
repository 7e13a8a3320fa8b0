"""What attempts have written and the store has not taken yet: in order, bounded, numbered when it is sent.

Any thread may write; one committer takes and settles batches, of which several may be under way. The writes of one
attempt are in one of them at a time, so whichever arrives first, they arrive in order. A write that finds the outbox
full is still kept: it is the caller that then waits for room (``Outbox.room``), so at most one write a caller is over
the bound.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .event_data import encode_output
from .store import Verb, Write, WriteCode
from .waiting import Waiter

if TYPE_CHECKING:
    from .attempt import Attempt

__all__ = ["Batch", "Bounds", "Entry", "Outbox"]

_STREAM_JOIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may wait for the store, and how much one call sends."""

    job_writes: int = 1_000
    job_bytes: int = 4_194_304
    total_writes: int = 20_000
    total_bytes: int = 67_108_864
    batch_writes: int = 256
    batch_bytes: int = 1_048_576


class Entry(NamedTuple):
    """A write before it has a number."""

    verb: Verb
    data: bytes
    extra: str


@dataclass(slots=True)
class Batch:
    """Writes that go to the store in one call, and whose they are. Taken once, sent until it is answered."""

    writes: list[Write] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(slots=True)
class _Stream:
    parts: list[str]
    size_bytes: int
    due: float


class Outbox:
    """The writes of one shard's attempts. ``wake`` tells the committer that there is something; any thread calls it."""

    def __init__(
        self,
        wake: Callable[[], None],
        bounds: Bounds,
        *,
        max_event_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bounds = bounds
        self.max_event_bytes = max_event_bytes
        self._wake = wake
        self._clock = clock
        # Reentrant: a garbage collection inside may log, and the log of a job comes back in here.
        self._lock = threading.RLock()
        # The attempts that have entries and none under way, in the order in which they get their turn.
        self._ready: deque[Attempt] = deque()
        self._streams: dict[tuple[Attempt, str], _Stream] = {}
        self._waiters: list[tuple[Attempt, int | None, Waiter]] = []
        self._count = 0
        self._bytes = 0

    @property
    def is_empty(self) -> bool:
        """Whether the store has taken everything."""
        return self._count == 0 and not self._streams

    @property
    def waiting(self) -> tuple[int, int]:
        """How many writes and bytes the store has not taken yet."""
        return self._count, self._bytes

    def put(self, attempt: Attempt, verb: Verb, data: bytes) -> bool:
        """Keep a write for the store; False when the attempt is over. The caller then waits for ``room``."""
        with self._lock:
            if attempt.is_closed:
                return False
            self._append(attempt, verb, data)
        self._wake()
        return True

    def offer(self, attempt: Attempt, verb: Verb, data: bytes) -> bool:
        """Keep a write for which nobody can wait, unless the outbox is full or the attempt over."""
        with self._lock:
            if attempt.is_closed or self._is_full(attempt):
                return False
            self._append(attempt, verb, data)
        self._wake()
        return True

    def join(self, attempt: Attempt, stream: str, text: str) -> bool:
        """Add to a stream's next output event, which is kept within 50 ms; False when the attempt is over."""
        data = encode_output(self.max_event_bytes, text, stream)
        key = (attempt, stream)
        with self._lock:
            if attempt.is_closed:
                return False
            pending = self._streams.get(key)
            if pending is not None and pending.size_bytes + len(data) > self.max_event_bytes:
                self._end_stream(key)
                pending = None
            if pending is None:
                self._streams[key] = _Stream([text], len(data), self._clock() + _STREAM_JOIN_S)
            else:
                # The frame of the event is counted with every part, so the joined event is never over the bound.
                pending.parts.append(text)
                pending.size_bytes += len(data)
        self._wake()
        return True

    def close(self, attempt: Attempt, verb: Verb, data: bytes, extra: str = "") -> bool:
        """Keep an attempt's last write and refuse all others; False when it was over before."""
        with self._lock:
            if attempt.is_closed:
                return False
            self._end_streams_of(attempt)
            attempt.is_closed = True
            self._append(attempt, verb, data, extra)
            self._release(lambda waiter: waiter is attempt)
        self._wake()
        return True

    def drop(self, attempt: Attempt) -> None:
        """Forget what an attempt has written, since the store takes nothing from it any more."""
        with self._lock:
            attempt.is_closed = True
            for key in [key for key in self._streams if key[0] is attempt]:
                del self._streams[key]
            for entry in attempt.entries:
                self._forget(attempt, len(entry.data))
            attempt.entries.clear()
            self._release(lambda waiter: waiter is attempt)

    def room(self, attempt: Attempt) -> Waiter | None:
        """Return None when there is room for more, else what is done when there may be, or the attempt is stopped."""
        with self._lock:
            if attempt.is_closed or not self._is_full(attempt):
                return None
            return self._wait(attempt, None)

    def stored(self, attempt: Attempt) -> Waiter | None:
        """Return None when the store has all that was written so far, else what is done when it has."""
        with self._lock:
            self._end_streams_of(attempt)
            if attempt.pending_writes == 0:
                return None
            waiter = self._wait(attempt, attempt.put_writes)
        self._wake()
        return waiter

    def release_waiters(self, attempt: Attempt) -> None:
        """Let whoever waits for this attempt look again: it was asked to stop."""
        with self._lock:
            self._release(lambda waiter: waiter is attempt)

    def take(self) -> Batch:
        """Take the next batch, numbering its writes; only the committer calls this."""
        batch = Batch()
        writes, attempts = batch.writes, batch.attempts
        room, room_bytes = self.bounds.batch_writes, self.bounds.batch_bytes
        with self._lock:
            self._end_due_streams()
            while self._ready and len(writes) < room:
                attempt = self._ready[0]
                entries = attempt.entries
                while entries and len(writes) < room:
                    verb, data, extra = entries[0]
                    room_bytes -= len(data)
                    if writes and room_bytes < 0:
                        room = 0
                        break
                    entries.popleft()
                    attempt.sent_writes += 1
                    attempt.is_under_way = True
                    writes.append(
                        Write(attempt.job_id, attempt.number, attempt.sent_writes, verb, data, extra)
                    )
                    attempts.append(attempt)
                if not attempt.is_under_way and entries:
                    break
                self._ready.popleft()
        return batch

    def settle(self, batch: Batch, codes: Sequence[WriteCode]) -> list[tuple[Attempt, WriteCode]]:
        """Account for an answered batch; returns each attempt with the code of its last write in it."""
        last: dict[Attempt, WriteCode] = {}
        with self._lock:
            for write, attempt, code in zip(batch.writes, batch.attempts, codes, strict=True):
                self._forget(attempt, len(write.data))
                last[attempt] = code
            for attempt in last:
                attempt.is_under_way = False
                if attempt.entries:
                    self._ready.append(attempt)
            if self._waiters:
                self._release(lambda _: False)
        return list(last.items())

    def next_due(self) -> float | None:
        """When (on its clock) a stream's pending text is to be sent; None without one."""
        with self._lock:
            return min((stream.due for stream in self._streams.values()), default=None)

    def _is_full(self, attempt: Attempt) -> bool:
        bounds = self.bounds
        return (
            attempt.pending_writes >= bounds.job_writes
            or attempt.pending_bytes >= bounds.job_bytes
            or self._count >= bounds.total_writes
            or self._bytes >= bounds.total_bytes
        )

    def _append(self, attempt: Attempt, verb: Verb, data: bytes, extra: str = "") -> None:
        attempt.entries.append(Entry(verb, data, extra))
        if not attempt.is_under_way and len(attempt.entries) == 1:
            self._ready.append(attempt)
        self._count += 1
        self._bytes += len(data)
        attempt.put_writes += 1
        attempt.pending_writes += 1
        attempt.pending_bytes += len(data)

    def _forget(self, attempt: Attempt, size_bytes: int) -> None:
        self._count -= 1
        self._bytes -= size_bytes
        attempt.pending_writes -= 1
        attempt.pending_bytes -= size_bytes

    def _end_stream(self, key: tuple[Attempt, str]) -> None:
        attempt, name = key
        text = "".join(self._streams.pop(key).parts)
        self._append(attempt, Verb.OUTPUT, encode_output(self.max_event_bytes, text, name))

    def _end_streams_of(self, attempt: Attempt) -> None:
        for key in [key for key in self._streams if key[0] is attempt]:
            self._end_stream(key)

    def _end_due_streams(self) -> None:
        now = self._clock()
        for key in [key for key, stream in self._streams.items() if stream.due <= now]:
            self._end_stream(key)

    def _wait(self, attempt: Attempt, until_settled: int | None) -> Waiter:
        waiter = Waiter()
        self._waiters.append((attempt, until_settled, waiter))
        return waiter

    def _release(self, is_stopped: Callable[[Attempt], bool]) -> None:
        waiting, self._waiters = self._waiters, []
        for attempt, until_settled, waiter in waiting:
            if is_stopped(attempt):
                ready = True
            elif until_settled is None:
                ready = not self._is_full(attempt)
            else:
                ready = attempt.put_writes - attempt.pending_writes >= until_settled
            if ready:
                waiter.finish()
            elif not waiter.is_abandoned:
                self._waiters.append((attempt, until_settled, waiter))
