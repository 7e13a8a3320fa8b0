"""Threads for plain job functions. A thread whose function does not end in time is given up, and replaced.

Not ``ThreadPoolExecutor``: its threads are joined when the interpreter exits, so one stuck function would keep the
worker alive for ever.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["Threads", "Ticket"]


class Ticket:
    """One call. Once it is given up, it is not begun any more."""

    __slots__ = ("_lock", "_run", "_state")

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._state = "waiting"  # then "running", then "ended"; or "given up"

    def begin(self) -> bool:
        """Run the call, unless it was given up before; tells whether its thread was given up meanwhile."""
        with self._lock:
            if self._state == "given up":
                return False
            self._state = "running"
        self._run()
        with self._lock:
            if self._state == "running":
                self._state = "ended"
            return self._state == "given up"

    def give_up(self) -> bool:
        """Wait for it no more; tells whether a thread is stuck in it."""
        with self._lock:
            is_stuck = self._state == "running"
            self._state = "given up"
            return is_stuck


class Threads:
    """At most ``size`` daemon threads, besides those that are stuck; started as they are needed. Used from one thread.

    Args:
        on_exhausted: called when as many threads as ``size`` are stuck at once: the process is to be replaced.
    """

    def __init__(self, size: int, on_exhausted: Callable[[], None]) -> None:
        self._size = size
        self._on_exhausted = on_exhausted
        self._calls: SimpleQueue[Ticket | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._names = itertools.count(1)
        self._live = 0
        self._open = 0
        self.stuck = 0
        """How many threads are in a call that was given up."""

    def submit(self, run: Callable[[], None]) -> Ticket:
        """Run ``run`` on a thread, in order. It must not raise. Its caller then says ``finish`` or ``give_up``."""
        ticket = Ticket(run)
        self._open += 1
        if self._live < min(self._open, self._size):
            self._start()
        self._calls.put(ticket)
        return ticket

    def finish(self) -> None:
        """One call has ended."""
        self._open -= 1

    def give_up(self, ticket: Ticket) -> None:
        """Wait for a call no more."""
        self._open -= 1
        if not ticket.give_up():
            return
        with self._lock:
            self.stuck += 1
        self._live -= 1
        self._start()
        if self.stuck >= self._size:
            self._on_exhausted()

    def close(self) -> None:
        """Let the threads end, each after the call it is in."""
        for _ in range(self._live):
            self._calls.put(None)

    def _start(self) -> None:
        self._live += 1
        threading.Thread(target=self._work, name=f"tidings-job-{next(self._names)}", daemon=True).start()

    def _work(self) -> None:
        while (ticket := self._calls.get()) is not None:
            if ticket.begin():
                with self._lock:
                    self.stuck -= 1
                return
