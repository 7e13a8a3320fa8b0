"""The worker: claims jobs, runs their functions on one event loop and on threads, and writes what they say."""

from .runtime import WorkerExhausted, run_worker, worker_name

__all__ = ["WorkerExhausted", "run_worker", "worker_name"]
