"""``make chaos``: run a plan and print what came of it. Exit status 1 when a promise was not kept."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .checker import check_history
from .history import read_history
from .plan import Size, make_plan
from .run import run_plan

_FAULTS_SHOWN = 50


def main() -> int:
    """Run as the arguments say."""
    usual = Size()
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat the plan of this seed; default: a new one")
    parser.add_argument("--jobs", type=int, default=usual.jobs)
    parser.add_argument("--workers", type=int, default=usual.workers)
    parser.add_argument("--duration", type=float, default=usual.duration_s, help="seconds")
    parser.add_argument("--lease", type=float, default=usual.lease_s, help="seconds")
    parser.add_argument("--kill-every", type=float, default=usual.worker_kill_every_s, help="seconds")
    parser.add_argument("--store-kills", type=int, default=usual.store_kills)
    parser.add_argument("--runtime", choices=["tidings", "dramatiq"], default=usual.runtime)
    parser.add_argument("--check", type=Path, metavar="HISTORY", help="only judge a history that was kept")
    given = parser.parse_args()
    if given.check is not None:
        return _tell(check_history(read_history(given.check)))
    seed = secrets.randbits(31) if given.seed is None else given.seed
    size = Size(
        jobs=given.jobs, workers=given.workers, duration_s=given.duration, lease_s=given.lease,
        worker_kill_every_s=given.kill_every, store_kills=given.store_kills,
        runtime=given.runtime,
    )  # fmt: skip
    directory = Path(tempfile.mkdtemp(prefix="tidings-chaos-"))
    print(f"seed {seed}; the history is kept in {directory}", flush=True)
    started = time.monotonic()
    status = _tell(run_plan(make_plan(seed, size), directory))
    print(f"took {time.monotonic() - started:.0f} s")
    if status == 0:
        shutil.rmtree(directory)
    else:
        print(
            f"repeat it: make chaos ARGS='--seed {seed}'; judge it again: --check {directory}/history.jsonl"
        )
    return status


def _tell(report) -> int:  # type: ignore[no-untyped-def]
    for name, value in report.figures.items():
        print(f"{name}: {value}")
    for fault in report.faults[:_FAULTS_SHOWN]:
        print(f"FAULT {fault}")
    print(f"{len(report.faults)} faults")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
