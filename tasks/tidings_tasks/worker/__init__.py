"""The worker: claims jobs, runs their functions on one event loop, on threads and in processes, and writes what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime import WorkerExhausted, run_worker, worker_name

__all__ = ["WorkerExhausted", "run_worker", "worker_name"]


def __getattr__(name: str) -> Any:
    # A child process of the pool needs none of the runtime's libraries.
    if name in __all__:
        from . import runtime

        return getattr(runtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
