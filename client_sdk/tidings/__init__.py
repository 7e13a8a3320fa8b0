"""Tidings: background jobs that every browser and Python client can follow live. This is the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client
    from .cursor import Reset, Snapshot, WatchItem
    from .documents import report_input_from_file
    from .policy import Backoff, WatchPolicy
    from .protocol import errors
    from .protocol.bulk import CancelJobs, CancelledJobs
    from .protocol.events import Event
    from .protocol.models import FileInfo, Job, JobPage, JobStats, JobStatus, JobTypeInfo, SubmitJob
    from .protocol.states import EventKind, JobState
    from .sync import SyncClient, SyncWatch
    from .transport import ConnectionState
    from .watching import Watch

__version__ = "0.1.0"

# Loaded on first use: the server and the workers import `tidings.protocol` alone and need no HTTP client.
_HOME = {
    "Backoff": "policy",
    "CancelJobs": "protocol.bulk",
    "CancelledJobs": "protocol.bulk",
    "Client": "client",
    "ConnectionState": "transport",
    "Event": "protocol.events",
    "EventKind": "protocol.states",
    "FileInfo": "protocol.models",
    "Job": "protocol.models",
    "JobPage": "protocol.models",
    "JobState": "protocol.states",
    "JobStats": "protocol.models",
    "JobStatus": "protocol.models",
    "JobTypeInfo": "protocol.models",
    "Reset": "cursor",
    "Snapshot": "cursor",
    "SubmitJob": "protocol.models",
    "SyncClient": "sync",
    "SyncWatch": "sync",
    "Watch": "watching",
    "WatchItem": "cursor",
    "WatchPolicy": "policy",
    "errors": "protocol.errors",
    "report_input_from_file": "documents",
}

__all__ = [
    "Backoff",
    "CancelJobs",
    "CancelledJobs",
    "Client",
    "ConnectionState",
    "Event",
    "EventKind",
    "FileInfo",
    "Job",
    "JobPage",
    "JobState",
    "JobStats",
    "JobStatus",
    "JobTypeInfo",
    "Reset",
    "Snapshot",
    "SubmitJob",
    "SyncClient",
    "SyncWatch",
    "Watch",
    "WatchItem",
    "WatchPolicy",
    "__version__",
    "errors",
    "report_input_from_file",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f".{home}", __name__)
    return module if name == "errors" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
