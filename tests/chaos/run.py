"""Carries a plan out: faults from the main thread, clients on a loop in a thread of their own."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

from tests.support.timing import TIMEOUT_FACTOR

from .checker import Report, check_history
from .clients import Clients
from .history import History, read_history
from .installation import Installation
from .plan import Plan

__all__ = ["run_plan"]

_TICK_S = 0.02
_FROZEN_LEASES = 1.7


def run_plan(plan: Plan, directory: Path) -> Report:
    """Run a plan in a new directory, which keeps the history and the processes' logs, and judge it.

    Raises:
        RuntimeError: a worker ended by itself.
        TimeoutError: a worker does not start, or some jobs do not end.
    """
    size = plan.size
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "history.jsonl"
    with History(path) as history:
        history.add("run", seed=plan.seed, jobs=size.jobs, lease_s=size.lease_s, slack=TIMEOUT_FACTOR)
        with Installation(
            directory, workers=size.workers, lease_s=size.lease_s, history=history, runtime=size.runtime
        ) as made:
            failures: list[BaseException] = []

            def run_clients() -> None:
                try:
                    asyncio.run(Clients(plan, made.url, history).run())
                except BaseException as error:
                    failures.append(error)

            thread = threading.Thread(target=run_clients, name="chaos clients", daemon=True)
            thread.start()
            try:
                _make_faults(plan, made)
            finally:
                made.thaw_workers(all_of_them=True)
            while thread.is_alive():
                made.tend()
                thread.join(_TICK_S)
            if failures:
                raise failures[0]
    return check_history(read_history(path))


def _make_faults(plan: Plan, made: Installation) -> None:
    started = time.monotonic()
    for fault in plan.faults:
        while time.monotonic() < started + fault.at_s:
            made.tend()
            time.sleep(_TICK_S)
        if fault.kind == "kill_worker":
            made.kill_worker(fault.pick)
        elif fault.kind == "freeze_worker":
            made.freeze_worker(fault.pick, plan.size.lease_s * _FROZEN_LEASES)
        else:
            before = time.monotonic()
            made.kill_store()
            started += time.monotonic() - before  # what is planned behind it keeps its distance
    while any(worker.thaw_at_ms for worker in made.workers):
        made.tend()
        time.sleep(_TICK_S)
    made.wait_ready()
