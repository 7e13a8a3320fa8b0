"""A short run of the chaos; ``make chaos`` runs the long one, and repeats this one's plan from its seed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.support.timing import scaled

from .plan import Size, make_plan
from .run import run_plan

SHORT = Size(
    jobs=150, workers=2, duration_s=8, lease_s=2, worker_kill_every_s=1.7, freeze_every_s=7, store_kills=1
)


@pytest.mark.acceptance
@pytest.mark.timeout(scaled(60))
def test_killed_workers_and_a_killed_store_lose_and_double_nothing(tmp_path: Path) -> None:
    """150 jobs, two workers killed in turn and once frozen, one kill of the store: every promise is kept."""
    seed = int(os.environ.get("CHAOS_SEED", secrets.randbits(31)))
    report = run_plan(make_plan(seed, SHORT), tmp_path / "run")
    told = "\n".join(report.faults[:20])
    assert not report.faults, f"{len(report.faults)} faults with CHAOS_SEED={seed}:\n{told}"
    assert report.figures["jobs"] == SHORT.jobs
    assert report.figures["store kills"] == 1
    assert report.figures["worker kills"] >= 1
