"""How an attempt ends: from what a function returned or raised to the one write that ends it."""

from __future__ import annotations

import random
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from tidings.protocol.errors import InvalidInput, UnknownJobType

from ..attempt import Attempt, StopReason
from ..job_type import InvalidResult
from ..outcomes import Fail, JobCancelled, Retry
from ..store import Verb

__all__ = [
    "Verdict",
    "backoff_ms",
    "describe",
    "fail_for_good",
    "judge_error",
    "judge_failure",
    "judge_refusal",
    "judge_result",
    "judge_timeout",
    "text_of",
]

_MAX_MESSAGE_CHARS = 2_048
_MAX_STACK_CHARS = 16_384
_JITTER = 0.25


@dataclass(frozen=True, slots=True)
class Verdict:
    """The last write of an attempt. ``data`` is JSON; ``extra`` as ``step.lua`` takes it for the verb."""

    verb: Verb
    data: bytes
    extra: str = ""


def describe(code: str, kind: str, message: str) -> bytes:
    """Make an event's ``error``: no traceback, and of the message no more than 2 KiB."""
    text = message.encode("utf-8", "replace")
    if len(text) > _MAX_MESSAGE_CHARS:
        text = text[: _MAX_MESSAGE_CHARS - 3]
        return orjson.dumps({"code": code, "type": kind, "message": text.decode("utf-8", "ignore") + "…"})
    return orjson.dumps({"code": code, "type": kind, "message": text.decode()})


def backoff_ms(backoff_s: Sequence[float], failures: int, *, jitter: float | None = None) -> int:
    """How long to wait after so many failures (1 or more), ms: the delay listed for it, the last one repeating.

    Up to a quarter is added at random; ``jitter`` (0 to 1) takes the place of the random number.
    """
    delay_s = backoff_s[min(failures, len(backoff_s)) - 1] if backoff_s else 0.0
    return round(delay_s * 1000 * (1 + _JITTER * (random.random() if jitter is None else jitter)))


def fail_for_good(error: bytes, *, dead: bool = True, exception: BaseException | None = None) -> Verdict:
    """End without another try. ``dead``: among the dead letters, with the traceback of the exception, its last 16 KiB."""
    more: dict[str, object] = {"dead": dead}
    if dead and exception is not None and exception.__traceback__ is not None:
        text = "".join(traceback.format_exception(exception))
        more["stack"] = text.encode("utf-8", "replace").decode()[-_MAX_STACK_CHARS:]
    return Verdict(Verb.FAIL, error, orjson.dumps(more).decode())


def judge_result(result: bytes, max_bytes: int) -> Verdict:
    """End with a result, unless it is too large to keep; another try would make the same."""
    if len(result) > max_bytes:
        message = (
            f"the result has {len(result)} bytes of JSON; at most {max_bytes} are kept. Save it as a file"
        )
        return fail_for_good(describe("result_too_large", "ResultTooLarge", message))
    return Verdict(Verb.COMPLETE, result)


def judge_timeout(attempt: Attempt) -> Verdict:
    """End an attempt that ran out of time; it counts as a try."""
    message = f"the job ran longer than {attempt.spec.timeout_s:g} s"
    return judge_failure(attempt, describe("timeout", "JobTimedOut", message))


def judge_failure(
    attempt: Attempt,
    error: bytes,
    *,
    delay_s: float | None = None,
    is_unbounded: bool = False,
    exception: BaseException | None = None,
) -> Verdict:
    """End an attempt that failed: another try after the delay, or the dead letters when none is left."""
    failures = attempt.tries + 1
    if failures >= attempt.spec.max_attempts and not is_unbounded:
        return fail_for_good(error, exception=exception)
    delay_ms = backoff_ms(attempt.spec.backoff_s, failures) if delay_s is None else round(delay_s * 1000)
    return Verdict(Verb.RETRY, error, f'{{"delay_ms":{delay_ms}}}')


def judge_error(attempt: Attempt, error: BaseException) -> Verdict:
    """End an attempt whose function raised. What it was told to stop for goes before what it made of it."""
    kind = type(error).__name__
    if attempt.stop is StopReason.CANCELLED or isinstance(error, JobCancelled):
        return Verdict(Verb.CANCEL, b"null")
    if attempt.stop is StopReason.TIMED_OUT:
        return judge_timeout(attempt)
    if attempt.stop is StopReason.HANDED_BACK:
        return Verdict(Verb.RELEASE, b"null")
    if isinstance(error, Fail):
        return fail_for_good(describe(error.code, kind, str(error)), dead=False)
    if isinstance(error, Retry):
        described = describe("retry", kind, str(error))
        return judge_failure(attempt, described, delay_s=error.delay_s, exception=error)
    if isinstance(error, InvalidResult):
        return fail_for_good(describe(error.code, kind, str(error)), exception=error)
    return judge_failure(attempt, describe("exception", kind, text_of(error)), exception=error)


def judge_refusal(attempt: Attempt, error: InvalidInput) -> Verdict:
    """End an attempt whose function was not called at all.

    An unknown type is tried again like a failure: where versions roll, another worker may know it. An input that
    is not valid any more will not become so.
    """
    described = describe(error.code, type(error).__name__, str(error))
    if isinstance(error, UnknownJobType):
        return judge_failure(attempt, described)
    return fail_for_good(described)


def text_of(error: BaseException) -> str:
    """Return the message of an exception, whatever its ``__str__`` does."""
    try:
        return str(error)
    except Exception as broken:
        return f"(its message cannot be had: {type(broken).__name__})"
