"""The outbox of a job in a child process: hands every write to the worker, which has the real one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ..event_data import encode_output
from ..store import Verb
from ..waiting import Waiter

if TYPE_CHECKING:
    from ..attempt import Attempt

__all__ = ["RemoteOutbox"]

_MOST_WRITES = 256
_MOST_BYTES = 1_048_576


class RemoteOutbox:
    """Does for a ``SyncJobContext`` what ``Outbox`` does. At most 256 writes or 1 MiB are on their way to the worker.

    Any thread may use it. An exception of a signal handler must not tear a frame apart, so ``shield`` keeps it off.
    """

    def __init__(
        self,
        send: Callable[..., None],
        shield: Callable[[], AbstractContextManager[None]],
        *,
        max_event_bytes: int,
    ) -> None:
        self.max_event_bytes = max_event_bytes
        self._send = send
        self._shield = shield
        self._lock = threading.RLock()
        self._acked = 0
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._flushes = 0
        self._rooms: list[Waiter] = []
        self._flushing: dict[int, Waiter] = {}

    def put(self, attempt: Attempt, verb: Verb, data: bytes) -> bool:
        """Hand a write over; False when the attempt is over. The caller then waits for ``room``."""
        return self._pass_on(attempt, data, "write", verb.value)

    def offer(self, attempt: Attempt, verb: Verb, data: bytes) -> bool:
        """Hand a write over for which nobody can wait, unless there is no room or the attempt is over."""
        return not self._is_full and self._pass_on(attempt, data, "write", verb.value)

    def join(self, attempt: Attempt, stream: str, text: str) -> bool:
        """Add to a stream's next output event; False when the attempt is over."""
        encode_output(
            self.max_event_bytes, text, stream
        )  # a text that is too long is told to its author here
        return self._pass_on(attempt, text.encode(), "join", stream)

    def room(self, attempt: Attempt) -> Waiter | None:
        """Return None when there is room for more, else what is done when there may be, or the attempt is stopped."""
        with self._shield(), self._lock:
            if attempt.is_closed or not self._is_full:
                return None
            waiter = Waiter()
            self._rooms.append(waiter)
            return waiter

    def stored(self, attempt: Attempt) -> Waiter | None:
        """Return what is done when the store has all that was written so far; None the second time that is asked."""
        with self._shield(), self._lock:
            if attempt.is_closed or attempt.put_writes == attempt.sent_writes:
                return None
            attempt.sent_writes = attempt.put_writes
            self._flushes += 1
            waiter = Waiter()
            self._flushing[self._flushes] = waiter
            self._send("flush", self._flushes)
            return waiter

    def close(self, attempt: Attempt) -> None:
        """Take nothing from this attempt any more."""
        with self._lock:
            attempt.is_closed = True
        self.release_waiters(attempt)

    def drop(self, attempt: Attempt) -> None:
        """Take nothing from an attempt that the store does not know any more."""
        self.close(attempt)

    def release_waiters(self, attempt: Attempt) -> None:
        """Let whoever waits look again: the job was asked to stop."""
        with self._lock:
            waiting = [*self._rooms, *self._flushing.values()]
            self._rooms = []
            self._flushing.clear()
        _resolve(waiting)

    def hear_ack(self, count: int) -> None:
        """The worker has room for all of the first ``count`` writes."""
        with self._lock:
            while self._acked < count and self._sizes:
                self._acked += 1
                self._bytes -= self._sizes.popleft()
            waiting, self._rooms = self._rooms, []
        _resolve(waiting)

    def hear_flushed(self, number: int) -> None:
        """The store has what was written before this flush."""
        with self._lock:
            waiter = self._flushing.pop(number, None)
        if waiter is not None:
            _resolve([waiter])

    @property
    def _is_full(self) -> bool:
        return len(self._sizes) >= _MOST_WRITES or self._bytes >= _MOST_BYTES

    def _pass_on(self, attempt: Attempt, body: bytes, what: str, argument: str) -> bool:
        with self._shield(), self._lock:
            if attempt.is_closed:
                return False
            attempt.put_writes += 1
            self._sizes.append(len(body))
            self._bytes += len(body)
            self._send(what, argument, body=body)
            return True


def _resolve(waiting: list[Waiter]) -> None:
    for waiter in waiting:
        waiter.finish()
