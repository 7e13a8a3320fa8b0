"""One call of a job function: with its context, its input, and a verdict on whatever comes out of it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any, Protocol

from dramatiq.errors import ActorNotFound

from tidings.protocol.errors import InvalidInput, UnknownJobType

from ..attempt import Attempt
from ..context import CURRENT, JobContext, SyncJobContext
from ..job_type import JobType
from ..outcomes import Fail, JobStopped, Retry
from ..queue.policy import Verdict, judge_error, judge_refusal, judge_result
from .driver import Driver

__all__ = ["AsyncCall", "AsyncJobCall", "SyncCall", "SyncJobCall", "judge_uncalled", "log_error"]

_log = logging.getLogger(__name__)


class AsyncCall(Protocol):
    """A call that runs as a task on the worker's loop."""

    context: contextvars.Context

    @property
    def cpu_s(self) -> float:
        """CPU time that the function has used."""

    async def run(self) -> Verdict:
        """Call the function; every outcome is a verdict. Await it once."""

    def interrupt(self) -> None:
        """Raise the attempt's reason to stop where the function waits."""

    def abandon(self) -> None:
        """End the task without the function."""


class SyncCall(Protocol):
    """A call that runs on a thread."""

    def run(self) -> Verdict:
        """Call the function; every outcome is a verdict."""


class AsyncJobCall:
    """A call of an ``async`` job function."""

    def __init__(
        self, attempt: Attempt, job_type: JobType[Any, Any], data: Any, max_result_bytes: int
    ) -> None:
        self._attempt, self._job_type, self._max_result_bytes = attempt, job_type, max_result_bytes
        job_context = JobContext(attempt)
        self.context = contextvars.copy_context()
        self.context.run(CURRENT.set, job_context)
        # The coroutine is made here and begun in the task; until then it has run nothing.
        self._driver: Driver[Any] = Driver(job_type.run(job_context, data), attempt.error)

    @property
    def cpu_s(self) -> float:
        """CPU time that the function has used."""
        return self._driver.cpu_ns / 1e9

    async def run(self) -> Verdict:
        """Call the function; every outcome is a verdict. Await it once."""
        try:
            result = await self._driver
            return judge_result(self._job_type.dump_result(result), self._max_result_bytes)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            log_error(self._attempt, error)
            return judge_error(self._attempt, error)

    def interrupt(self) -> None:
        """Raise the attempt's reason to stop where the function waits."""
        self._driver.interrupt()

    def abandon(self) -> None:
        """End the task without the function."""
        self._driver.abandon()


class SyncJobCall:
    """A call of a plain job function."""

    def __init__(
        self, attempt: Attempt, job_type: JobType[Any, Any], data: Any, max_result_bytes: int
    ) -> None:
        self._attempt, self._job_type, self._max_result_bytes = attempt, job_type, max_result_bytes
        self._data = data

    def run(self) -> Verdict:
        """Call the function; every outcome is a verdict."""
        job_context = SyncJobContext(self._attempt)
        CURRENT.set(job_context)
        try:
            result = self._job_type.run(job_context, self._data)
            return judge_result(self._job_type.dump_result(result), self._max_result_bytes)
        except BaseException as error:
            log_error(self._attempt, error)
            return judge_error(self._attempt, error)


def judge_uncalled(attempt: Attempt, error: Exception) -> Verdict:
    """End an attempt whose function is not there, or whose input is not valid (any more)."""
    if isinstance(error, ActorNotFound):
        error = UnknownJobType(f"no actor {attempt.spec.type!r} is declared in this worker")
    if isinstance(error, InvalidInput):
        _log.error("job %s of type %s is not run: %s", attempt.job_id, attempt.spec.type, error)
        return judge_refusal(attempt, error)
    log_error(attempt, error)
    return judge_error(attempt, error)


def log_error(attempt: Attempt, error: BaseException) -> None:
    """Log what a function raised: with its traceback, unless it is an outcome that the author chose."""
    where = {"job_id": attempt.job_id, "attempt": attempt.number, "job_type": attempt.spec.type}
    if isinstance(error, JobStopped) or (attempt.stop is not None and _is_cancellation(error)):
        _log.info("job %s attempt %d stopped: %s", attempt.job_id, attempt.number, error, extra=where)
    elif isinstance(error, Fail | Retry):
        _log.info(
            "job %s attempt %d: %s: %s",
            attempt.job_id,
            attempt.number,
            type(error).__name__,
            error,
            extra=where,
        )
    else:
        _log.error(
            "job %s attempt %d of %s failed",
            attempt.job_id,
            attempt.number,
            attempt.spec.type,
            exc_info=error,
            extra=where,
        )


def _is_cancellation(error: BaseException) -> bool:
    # Before Python 3.13 a TaskGroup wraps a JobStopped as any other exception of its body.
    if isinstance(error, BaseExceptionGroup):
        return error.split(asyncio.CancelledError)[1] is None
    return isinstance(error, asyncio.CancelledError)
