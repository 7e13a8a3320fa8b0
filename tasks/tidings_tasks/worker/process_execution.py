"""One running job in the process pool: what it is told to stop for really stops it."""

from __future__ import annotations

from collections.abc import Callable

from ..attempt import Attempt, StopReason
from ..queue.policy import Verdict, describe, judge_failure
from ..usage import Usage
from .execution import CLEAN_UP_S, Execution, forced_verdict
from .processes import ChildLink, Processes

__all__ = ["ProcessExecution"]

_CANCEL_GRACE_S = 5.0
"""A cancelled function has so long to make a context call; then it is interrupted, and a second later killed."""


class ProcessExecution(Execution):
    """Runs a plain function in a child process, on its main thread.

    Args:
        module: where the function is, for a child that does not know its job type yet.
    """

    def __init__(
        self,
        attempt: Attempt,
        module: str,
        pool: Processes,
        on_end: Callable[[Execution, Verdict], None],
    ) -> None:
        super().__init__(attempt, on_end)
        self.module = module
        self._pool = pool
        self._child: ChildLink | None = None

    @property
    def is_stray(self) -> bool:
        """Never: a function that goes on when its attempt is over is killed."""
        return False

    def start(self) -> None:
        """Call the function as soon as a process is free; its time counts from then."""
        self._pool.submit(self)

    def begin(self, child: ChildLink) -> None:
        """A process has been handed the job."""
        self._child = child
        self._after(self.attempt.spec.timeout_s, self._time_out)

    def stop(self, reason: StopReason) -> None:
        """Tell the function; one that cannot wait, or does not listen, is interrupted and then killed."""
        self.attempt.ask_to_stop(reason)
        if self._child is None:
            self.abandon()
            return
        if reason in (StopReason.TIMED_OUT, StopReason.HANDED_BACK):
            self._interrupt(reason)
        else:
            self._child.stop(reason, is_urgent=False)
            self._after(_CANCEL_GRACE_S, lambda: self._interrupt(reason))

    def abandon(self) -> None:
        """End the attempt now, and its process with it."""
        if self.is_over:
            return
        if self._child is None:
            self._pool.withdraw(self)
        else:
            self._child.kill()
        super().abandon()

    def returned(self, verdict: Verdict, usage: Usage) -> None:
        """The function has ended."""
        self.attempt.usage = usage
        self._end(verdict)

    def died(self, reason: str) -> None:
        """The process is gone: a failure as any other, unless the job was to stop anyway."""
        if self.attempt.stop is not None:
            self._end(forced_verdict(self.attempt))
        else:
            self._end(judge_failure(self.attempt, describe("process_died", "ProcessDied", reason)))

    def _interrupt(self, reason: StopReason) -> None:
        if self._child is not None and not self.is_over:
            self._child.stop(reason, is_urgent=True)
            self._after(CLEAN_UP_S, self.abandon)

    def _measure(self) -> None:
        return  # the process has told; of one that died nothing is known
