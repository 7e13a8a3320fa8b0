"""One measurement of one system: its processes started and ended, what they note read."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from .store import BenchStore
from .systems import ROOT, System, environ

__all__ = ["Bench", "Figures"]

Figures = dict[str, float]
"""What one measurement found, by metric."""

_LOOK_S = 0.01
_LIMIT_S = 300.0
_PRODUCER_LIMIT_S = 300.0
_STOP_S = 10.0
_STDERR = 2
"""Workers greet on standard output, where the table is to stand alone."""


@dataclass(frozen=True)
class Bench:
    """Measures systems on one store."""

    store: BenchStore
    folder: Path
    concurrency: int = 50

    def drain(self, system: System, job: str, jobs: int, *, empties: bool = True) -> Figures:
        """Have one worker run the jobs that wait: from the first start to the last end, the store's word counts."""
        if empties:
            self.store.empty()
        env = self._environ(jobs)
        self._produce(system, env, "batch", job, jobs)
        done_before = system.count_done(self.store.client) if system.count_done else 0
        store_cpu_s = self.store.cpu_s()
        with self._worker(system, env) as worker:
            first = self._note(worker, "first")
            # Of the process that runs the jobs it is known exactly; of others, where there are any, as of now.
            worker_cpu_s = first["cpu_s"] + _cpu_s(worker, without=first["pid"])
            if system.count_done is None:
                ended_ms = self._note(worker, "last")["at_ms"]
            else:
                self._wait(worker, lambda: system.count_done(self.store.client) - done_before >= jobs)
                ended_ms = time.monotonic_ns() / 1e6
            # The system counts in steps of 10 ms, so of very few jobs it may know nothing yet.
            worker_cpu_s = max(0.0, _cpu_s(worker) - worker_cpu_s)
            store_cpu_s = self.store.cpu_s() - store_cpu_s
        return {
            "jobs_per_s": jobs / (ended_ms - first["at_ms"]) * 1000,
            "store_cpu_us": store_cpu_s / jobs * 1e6,
            "worker_cpu_us": worker_cpu_s / jobs * 1e6,
        }

    def enqueue(self, system: System, mode: str, jobs: int) -> Figures:
        """Have one process submit jobs that nobody takes."""
        self.store.empty()
        store_cpu_s = self.store.cpu_s()
        took = self._produce(system, self._environ(jobs), mode, "noop", jobs)
        return {
            "jobs_per_s": jobs / took["seconds"],
            "store_cpu_us": (self.store.cpu_s() - store_cpu_s) / jobs * 1e6,
            "producer_cpu_us": took["cpu_s"] / jobs * 1e6,
        }

    def pick_up(self, system: System, jobs: int, *, empties: bool = True) -> Figures:
        """Have an idle worker take ten jobs a second: from before the submission to the start of the function."""
        if empties:
            self.store.empty()
        env = self._environ(jobs + 1)
        with self._worker(system, env) as worker:
            # The first one tells that the worker is there, and is not counted.
            self._produce(system, env, "paced", "pickup", 1)
            time.sleep(1.0)
            store_cpu_s, worker_cpu_s = self.store.cpu_s(), _cpu_s(worker)
            self._produce(system, env, "paced", "pickup", jobs)
            latencies_ms = self._note(worker, "latencies")[1:]
            store_cpu_s, worker_cpu_s = self.store.cpu_s() - store_cpu_s, _cpu_s(worker) - worker_cpu_s
        cuts = statistics.quantiles(latencies_ms, n=100, method="inclusive")
        return {
            "p50_ms": cuts[49],
            "p99_ms": cuts[98],
            "store_cpu_us": store_cpu_s / jobs * 1e6,
            "worker_cpu_us": worker_cpu_s / jobs * 1e6,
        }

    def _environ(self, jobs: int) -> dict[str, str]:
        notes = Path(tempfile.mkdtemp(dir=self.folder)) / "notes"
        return environ(
            self.store.url, self.store.socket, concurrency=self.concurrency, notes=notes, jobs=jobs,
            data_dir=self.folder / "data",
        )  # fmt: skip

    def _produce(
        self, system: System, env: dict[str, str], mode: str, job: str, jobs: int
    ) -> dict[str, float]:
        made = subprocess.run(
            [*system.producer, mode, system.jobs[job], str(jobs)],
            env=env, cwd=ROOT, stdout=subprocess.PIPE, timeout=_PRODUCER_LIMIT_S, check=True,
        )  # fmt: skip
        found: dict[str, float] = json.loads(made.stdout.splitlines()[-1])
        return found

    @contextmanager
    def _worker(self, system: System, env: dict[str, str]) -> Iterator[psutil.Popen]:
        worker = psutil.Popen(list(system.worker), env=env, cwd=ROOT, stdout=_STDERR)
        worker.notes = env["BENCH_NOTES"]
        try:
            yield worker
        finally:
            family = worker.children(recursive=True) if worker.poll() is None else []
            worker.terminate()
            try:
                worker.wait(_STOP_S)
            except psutil.TimeoutExpired:
                worker.kill()
                worker.wait()
            for member in family:
                if member.is_running():
                    member.kill()

    def _note(self, worker: Any, name: str) -> Any:
        path = Path(f"{worker.notes}.{name}")
        self._wait(worker, path.exists)
        return json.loads(path.read_text())

    def _wait(self, worker: Any, is_there: Any) -> None:
        deadline = time.monotonic() + _LIMIT_S
        while not is_there():
            if worker.poll() is not None:
                raise RuntimeError(f"the worker {worker.args} ended with {worker.returncode}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the worker {worker.args} did not get through in {_LIMIT_S:g} s")
            time.sleep(_LOOK_S)


def _cpu_s(worker: psutil.Process, *, without: int = 0) -> float:
    total = 0.0
    for member in [worker, *worker.children(recursive=True)]:
        if member.pid == without:
            continue
        times = member.cpu_times()
        total += times.user + times.system
    return total
