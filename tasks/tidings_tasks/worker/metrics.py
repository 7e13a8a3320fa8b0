"""What a worker counts, in a Prometheus registry of its own."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..attempt import Attempt
from ..queue.policy import Verdict
from ..store import Verb
from ..store.schedule_commands import Fired

__all__ = ["Metrics"]

_JOB_S = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 15, 60, 300, 1800)
_CPU_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 300)
_MEMORY_BYTES = tuple(float(mib * 1_048_576) for mib in (64, 128, 256, 512, 1024, 2048, 4096, 8192))


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
        self.hooks = Counter(
            "tidings_worker_hook_calls_total",
            "Calls of hooks, by what became of them: ok, failed, timed_out, dropped.",
            ["event", "outcome"],
            registry=self.registry,
        )
        self.schedule_runs = Counter(
            "tidings_schedule_runs_total",
            "Due times of schedules that this process fired: created, overlap, full, draining.",
            ["outcome"],
            registry=self.registry,
        )
        self.stalls = Counter(
            "tidings_worker_stalls_total",
            "Times that the process stood still for more than half a lease.",
            registry=self.registry,
        )
        self.running = Gauge("tidings_worker_running", "Jobs that run now.", registry=self.registry)
        self.waiting_writes = Gauge(
            "tidings_worker_waiting_writes", "Writes the store has not taken yet.", registry=self.registry
        )
        self.stuck_threads = Gauge(
            "tidings_worker_stuck_threads", "Threads in functions that were given up.", registry=self.registry
        )
        self.processes = Gauge(
            "tidings_worker_processes", "Child processes for job functions.", registry=self.registry
        )
        self.processes_died = Gauge(
            "tidings_worker_processes_died",
            "Child processes that died by themselves.",
            registry=self.registry,
        )
        self.rss_bytes = Gauge(
            "tidings_worker_rss_bytes", "Memory (resident) of the worker's process.", registry=self.registry
        )
        self.loop_lag_seconds = Gauge(
            "tidings_worker_loop_lag_seconds",
            "By how much the event loop was late, lately.",
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "tidings_worker_commit_seconds",
            "Duration of a step of the store, seconds.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=self.registry,
        )

        self.duration_seconds = self._by_type(
            "tidings_worker_job_seconds", "Time from the claim to the last write of an attempt.", _JOB_S
        )
        self.cpu_seconds = self._by_type(
            "tidings_worker_job_cpu_seconds", "CPU time of an attempt's function, seconds.", _CPU_S
        )
        self.memory_bytes = self._by_type(
            "tidings_worker_job_memory_peak_bytes",
            "Most memory (resident) of the process while an attempt ran; its own in the process pool.",
            _MEMORY_BYTES,
        )
        self._of_type: dict[str, _OfType] = {}

    def count_schedule(self, name: str, due_ms: int, fired: Fired) -> None:
        """A schedule was fired here."""
        for outcome in fired.jobs:
            self.schedule_runs.labels(outcome).inc()

    def count_start(self, attempt: Attempt) -> None:
        """An attempt began."""
        self._find(attempt.spec.type).started.inc()

    def count_hook(self, event: str, outcome: str) -> None:
        """A hook was called, or was not."""
        self.hooks.labels(event, outcome).inc()

    def count_end(self, attempt: Attempt, verdict: Verdict) -> None:
        """An attempt ended."""
        found = self._find(attempt.spec.type)
        found.ended(verdict.verb).inc()
        found.duration_seconds.observe(attempt.age_s)
        if attempt.usage is not None:
            found.cpu_seconds.observe(attempt.usage.cpu_s)
            found.memory_bytes.observe(attempt.usage.memory_peak_bytes)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)

    def _by_type(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, ["type"], buckets=buckets, registry=self.registry)

    def _find(self, kind: str) -> _OfType:
        found = self._of_type.get(kind)
        if found is None:
            found = self._of_type[kind] = _OfType(self, kind)
        return found


class _OfType:
    """One type's numbers, looked up once: finding them by their labels costs more than counting."""

    def __init__(self, metrics: Metrics, kind: str) -> None:
        self._metrics, self._kind = metrics, kind
        self.started = metrics.started.labels(kind)
        self.duration_seconds = metrics.duration_seconds.labels(kind)
        self.cpu_seconds = metrics.cpu_seconds.labels(kind)
        self.memory_bytes = metrics.memory_bytes.labels(kind)
        self._ended: dict[Verb, Counter] = {}

    def ended(self, verb: Verb) -> Counter:
        """The counter of attempts that ended with this write."""
        found = self._ended.get(verb)
        if found is None:
            found = self._ended[verb] = self._metrics.ended.labels(self._kind, verb.value)
        return found
