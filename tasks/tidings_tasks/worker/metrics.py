"""What a worker counts, in a Prometheus registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..attempt import Attempt
from ..queue.policy import Verdict

__all__ = ["Metrics"]


class Metrics:
    """The worker's numbers. Job types label them: there are as many as are registered."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.started = Counter(
            "tidings_worker_attempts_started_total", "Attempts begun.", ["type"], registry=self.registry
        )
        self.ended = Counter(
            "tidings_worker_attempts_ended_total",
            "Attempts ended, by their last write.",
            ["type", "outcome"],
            registry=self.registry,
        )
        self.refused = Counter(
            "tidings_worker_attempts_refused_total",
            "Attempts whose function was not called: an unknown type, an input that is not valid.",
            ["outcome"],
            registry=self.registry,
        )
        self.lost = Counter(
            "tidings_worker_attempts_lost_total", "Attempts that lost their lease.", registry=self.registry
        )
        self.dropped_logs = Counter(
            "tidings_worker_dropped_logs_total",
            "Records of logging that found no room in a job's buffer.",
            registry=self.registry,
        )
        self.store_failures = Counter(
            "tidings_worker_store_failures_total",
            "Calls that did not reach the store.",
            registry=self.registry,
        )
        self.running = Gauge("tidings_worker_running", "Jobs that run now.", registry=self.registry)
        self.waiting_writes = Gauge(
            "tidings_worker_waiting_writes", "Writes the store has not taken yet.", registry=self.registry
        )
        self.stuck_threads = Gauge(
            "tidings_worker_stuck_threads", "Threads in functions that were given up.", registry=self.registry
        )
        self.commit_seconds = Histogram(
            "tidings_worker_commit_seconds",
            "Duration of a step of the store, seconds.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=self.registry,
        )

    def count_start(self, attempt: Attempt) -> None:
        """An attempt began."""
        self.started.labels(attempt.spec.type).inc()

    def count_end(self, attempt: Attempt, verdict: Verdict) -> None:
        """An attempt ended."""
        self.ended.labels(attempt.spec.type, verdict.verb.value).inc()

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)
