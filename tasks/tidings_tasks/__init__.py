"""Write background jobs: ``@job`` registers a function, ``.submit()`` queues it, a ``tidings worker`` runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .context import JobContext, SyncJobContext, current_job
from .hooks import JobInfo, on_cancelled, on_completed, on_failed, on_retrying, on_started
from .outcomes import Fail, JobCancelled, JobHandedBack, JobLost, JobStopped, JobTimedOut, Retry
from .registry import job

if TYPE_CHECKING:
    from .connection import connect

__all__ = [
    "Fail",
    "JobCancelled",
    "JobContext",
    "JobHandedBack",
    "JobInfo",
    "JobLost",
    "JobStopped",
    "JobTimedOut",
    "Retry",
    "SyncJobContext",
    "connect",
    "current_job",
    "job",
    "on_cancelled",
    "on_completed",
    "on_failed",
    "on_retrying",
    "on_started",
]


def __getattr__(name: str) -> Any:
    # A module that only declares jobs does not need the store's libraries.
    if name == "connect":
        from .connection import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
