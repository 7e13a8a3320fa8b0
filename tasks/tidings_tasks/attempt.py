"""One attempt at a job: what a worker holds of it while the function runs, and how the function is told to stop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from tidings.protocol.errors import InvalidInput

from .outcomes import JobCancelled, JobHandedBack, JobLost, JobStopped, JobTimedOut
from .store import Claim

if TYPE_CHECKING:
    from .files import FileStore
    from .outbox import Entry, Outbox
    from .queue.policy import Verdict
    from .usage import Usage

__all__ = ["ASK_AGAIN_S", "Attempt", "StopReason"]

ASK_AGAIN_S = 5.0
"""A function that was told to stop and goes on has so long to clean up before it is told again."""


class StopReason(StrEnum):
    """Why a function is to stop."""

    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    HANDED_BACK = "handed_back"
    LOST = "lost"


_ERRORS: dict[StopReason, tuple[type[JobStopped], str]] = {
    StopReason.CANCELLED: (JobCancelled, "the job was cancelled"),
    StopReason.TIMED_OUT: (JobTimedOut, "the job ran longer than its timeout"),
    StopReason.HANDED_BACK: (JobHandedBack, "the worker is shutting down"),
    StopReason.LOST: (JobLost, "this attempt lost its lease; another one may be running"),
}


class Attempt:
    """A claimed job under its attempt number. Any thread may read it; the outbox keeps the counters.

    Args:
        is_shutting_down: tells whether the worker has begun to shut down.
    """

    def __init__(
        self,
        claim: Claim,
        outbox: Outbox,
        *,
        files: FileStore | None,
        is_shutting_down: Callable[[], bool],
    ) -> None:
        self.job_id = claim.id
        self.number = claim.attempt
        self.queue = claim.queue
        self.tries = claim.tries
        self.spec = claim.spec
        self._problem = claim.problem
        self.outbox = outbox
        self.files = files
        self.is_shutting_down = is_shutting_down
        self.stop: StopReason | None = None
        self.is_closed = False
        self.dropped_logs = 0
        self.entries: deque[Entry] = deque()
        self.is_under_way = False
        self.put_writes = 0
        self.sent_writes = 0
        self.pending_writes = 0
        self.pending_bytes = 0
        self.usage: Usage | None = None
        """What it used, once that is known: when its function has ended."""
        self.verdict: Verdict | None = None
        """How it ended, once it has."""
        self.memory_peak_bytes = 0
        self._began_at = time.monotonic()
        self._told_at: float | None = None

    @property
    def age_s(self) -> float:
        """How long ago it was claimed, seconds."""
        return time.monotonic() - self._began_at

    def check_input(self) -> None:
        """Tell whether the input is whole.

        Raises:
            InvalidInput: a result that it refers to could not be put into it.
        """
        if self._problem is not None:
            raise InvalidInput(self._problem)

    def ask_to_stop(self, reason: StopReason) -> None:
        """Have the function told at its next call of the context. A lost lease goes before any other reason."""
        if self.stop is None or reason is StopReason.LOST:
            self.stop = reason
        if reason is StopReason.LOST:
            self.outbox.drop(self)
        else:
            self.outbox.release_waiters(self)

    def error(self) -> JobStopped:
        """The exception for the reason to stop; this counts as telling the function."""
        kind, message = _ERRORS[self.stop or StopReason.LOST]
        self._told_at = time.monotonic()
        return kind(message)

    def check(self) -> None:
        """Raise what the function is to be told.

        Raises:
            JobStopped: it is to stop, and was not told in the last seconds, or nothing is taken from it any more.
            RuntimeError: the attempt has ended; only code that outlives its job function sees this.
        """
        if self.stop is not None:
            told = self._told_at is not None and time.monotonic() - self._told_at < ASK_AGAIN_S
            if self.is_closed or not told:
                raise self.error()
        elif self.is_closed:
            raise RuntimeError(
                f"attempt {self.number} of job {self.job_id} has ended; its context is of no use any more"
            )
