"""What steers a job's outcome: the exceptions a job function raises, and those that are raised in it.

Exception
├── Retry           raise it: try again, after ``delay_s`` or the job type's backoff
└── Fail            raise it: fail now, with this code and message, without another try
asyncio.CancelledError
└── JobStopped      raised in the function, at an await or a call of its context
    ├── JobCancelled    somebody cancelled the job
    ├── JobTimedOut     it ran longer than its ``timeout_s``
    ├── JobHandedBack   the worker is shutting down, and another one will run the job again
    └── JobLost         this attempt lost its lease: another one may be running, nothing it writes is kept

``JobStopped`` is no ``Exception``, so ``except Exception`` does not swallow it; ``finally`` and ``except
JobCancelled`` are where a function cleans up.
"""

from __future__ import annotations

import asyncio
import re

__all__ = ["Fail", "JobCancelled", "JobHandedBack", "JobLost", "JobStopped", "JobTimedOut", "Retry"]

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


class JobStopped(asyncio.CancelledError):
    """The job function is to end now. Raised in it, never by it."""


class JobCancelled(JobStopped):
    """The job was cancelled. A function may raise it itself too: then the job ends as ``cancelled``."""


class JobTimedOut(JobStopped):
    """The attempt took longer than the job's ``timeout_s``."""


class JobHandedBack(JobStopped):
    """The worker shuts down and its time of grace is over; the job goes back to its queue."""


class JobLost(JobStopped):
    """The attempt's lease is gone; whatever it still writes is refused."""


class Retry(Exception):
    """Give up this attempt and try again; it counts as a try. Without tries left the job fails.

    Args:
        delay_s: seconds until the next attempt, 0 or more; None: the job type's backoff.
        message: why, for whoever watches the job.
    """

    def __init__(self, delay_s: float | None = None, message: str = "") -> None:
        if delay_s is not None and not 0 <= delay_s <= 366 * 86_400:
            raise ValueError("delay_s must be between 0 and a year, in seconds")
        super().__init__(message or "the job asked to be tried again")
        self.delay_s = delay_s


class Fail(Exception):
    """End the job as failed, without another try. It is the author's decision, so it is no dead letter.

    Args:
        code: a stable word for programs: lower case letters, digits and ``_``.
        message: for people; of its length at most 2 KiB is kept.
    """

    def __init__(self, code: str, message: str = "") -> None:
        if _CODE.fullmatch(code) is None:
            raise ValueError(f"a code is made of a-z, 0-9 and _, like 'quota_exceeded', not {code!r}")
        super().__init__(message or code)
        self.code = code
