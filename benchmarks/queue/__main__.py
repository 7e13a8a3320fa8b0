"""`make bench-queue`: Tidings beside BullMQ, Celery, RQ, arq, taskiq and stock Dramatiq, on one Valkey in one run.

Prints a Markdown table on standard output and, with --json, writes every figure to a file. What it waits for and what it
skips goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from .growth import measure_growth
from .measuring import Bench, Figures
from .results import Run, make_rows, render_table
from .store import PERSISTENCE, BenchStore
from .systems import PEERS, TIDINGS, System, find_fault

Measure = Callable[[Bench, System, int], Figures]

SCENARIOS: dict[str, tuple[str, Measure, int, int]] = {
    "noop": ("noop", lambda bench, system, jobs: bench.drain(system, "noop", jobs), 20_000, 500),
    "buffered": ("buffered", lambda bench, system, jobs: bench.drain(system, "buffered", jobs), 8_000, 200),
    "awaited": ("awaited", lambda bench, system, jobs: bench.drain(system, "awaited", jobs), 8_000, 200),
    "enqueue-one": ("noop", lambda bench, system, jobs: bench.enqueue(system, "one", jobs), 8_000, 200),
    "enqueue-concurrent": (
        "noop",
        lambda bench, system, jobs: bench.enqueue(system, "concurrent", jobs),
        20_000,
        500,
    ),
    "enqueue-batch": ("noop", lambda bench, system, jobs: bench.enqueue(system, "batch", jobs), 20_000, 500),
    "pickup": ("pickup", lambda bench, system, jobs: bench.pick_up(system, jobs), 150, 20),
}
"""The job a system must have, how it is measured, and how many jobs a round takes: in full, and with --quick."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the file."""
    options = _parse(arguments)
    chosen = {system.name: system for system in [TIDINGS, *PEERS]}
    systems = []
    for name in options.systems or list(chosen):
        if fault := find_fault(chosen[name]):
            print(f"skipped {chosen[name].title}: {fault}", file=sys.stderr)
        else:
            systems.append(chosen[name])
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="bench") as folder, BenchStore(Path(folder) / "store") as store:
        bench = Bench(store, Path(folder), options.concurrency)
        heading = _describe(options, store, systems)
        if "growth" in options.scenarios:
            runs += measure_growth(bench, options)
        for round_ in range(options.rounds):
            for scenario in options.scenarios:
                if scenario != "growth":
                    runs += _measure_round(bench, scenario, systems, round_, options)
    rows = make_rows(runs)
    print(heading, render_table(rows), sep="\n\n")
    if options.json is not None:
        options.json.write_text(json.dumps([row.to_json() for row in rows], indent=1, ensure_ascii=False))
    return 0


def _measure_round(
    bench: Bench, scenario: str, systems: Sequence[System], round_: int, options: argparse.Namespace
) -> list[Run]:
    job, measure, full, quick = SCENARIOS[scenario]
    jobs = options.jobs or (quick if options.quick else full)
    runs = []
    # The order turns from round to round, so that a disturbance of some seconds does not always meet the same one.
    for place in range(len(systems)):
        system = systems[(place + round_) % len(systems)]
        if job in system.jobs:
            figures = measure(bench, system, jobs // system.slowness)
            runs.append(Run(scenario, system.name, round_, figures))
            shown = ", ".join(f"{name} {value:,.1f}" for name, value in figures.items())
            print(f"round {round_ + 1}: {scenario}: {system.title}: {shown}", file=sys.stderr)
    return runs


def _describe(options: argparse.Namespace, store: BenchStore, systems: Sequence[System]) -> str:
    versions = ", ".join(f"{system.title} {system.version()}".strip() for system in systems)
    return (
        f"Median of {options.rounds} rounds (least–most), concurrency {options.concurrency}, one worker process each; ratios are "
        f"medians of the rounds' ratios.\n{versions}; Valkey {store.version} on a unix socket ({PERSISTENCE}).\n"
        f"{psutil.cpu_count()} CPUs, {platform.system()} {platform.machine()}, "
        f"load {psutil.getloadavg()[0]:.1f} at the start."
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__)
    parser.add_argument("--rounds", type=int, help="how often each is measured [5; with --quick 1]")
    parser.add_argument("--quick", action="store_true", help="few jobs, one round: whether it works")
    parser.add_argument(
        "--scenario",
        dest="scenarios",
        action="append",
        choices=[*SCENARIOS, "growth"],
        help="[all but growth]",
    )
    parser.add_argument(
        "--system", dest="systems", action="append", choices=[s.name for s in [TIDINGS, *PEERS]], help="[all]"
    )
    parser.add_argument(
        "--jobs", type=int, help="jobs of one measurement, in the place of each scenario's own"
    )
    parser.add_argument("--concurrency", type=int, default=50, help="jobs at once in one worker process")
    parser.add_argument(
        "--kept", type=int, help="growth: finished jobs in the store [1,000,000; with --quick 2,000]"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure as JSON")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.kept = options.kept or (2_000 if options.quick else 1_000_000)
    options.scenarios = options.scenarios or list(SCENARIOS)
    return options


if __name__ == "__main__":
    raise SystemExit(main())
