"""Metrics of one server process, in a registry of their own, as Prometheus text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

import tidings
from tidings_tasks.store.schedule_commands import Fired

__all__ = ["Metrics"]

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Metrics:
    """What is counted and measured. Labels come from fixed sets only: no id, owner or path of a caller is among them."""

    content_type: Final = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "tidings_http_requests", "HTTP requests answered.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "tidings_http_request_seconds", "Time to answer, streams and long-polls apart.", ["method", "route"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.submissions = Counter(
            "tidings_submissions", "Submissions by outcome.", ["outcome"], registry=self.registry
        )
        self.schedule_runs = Counter(
            "tidings_schedule_runs", "Due times of schedules that this process fired.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.stream_seconds = Histogram(
            "tidings_stream_seconds", "How long streams and long-polls were open.", ["kind"],
            buckets=(1, 5, 15, 60, 300, 1800, 7200), registry=self.registry,
        )  # fmt: skip
        build = Gauge("tidings_build_info", "The running version.", ["version"], registry=self.registry)
        build.labels(tidings.__version__).set(1)

    def count_schedule(self, name: str, due_ms: int, fired: Fired) -> None:
        """A schedule was fired here: ``created``, ``overlap``, ``full`` or ``draining`` for each due time."""
        for outcome in fired.jobs:
            self.schedule_runs.labels(outcome).inc()

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Add a gauge that is read whenever metrics are asked for. ``read`` must return at once."""
        Gauge(name, description, registry=self.registry).set_function(read)

    def render(self) -> bytes:
        """Return all metrics in the text format 0.0.4."""
        return generate_latest(self.registry)
