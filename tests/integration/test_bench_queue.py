"""The benchmark of the queue: that it runs, counts every job, and compares the right things. No timing is judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.queue.__main__ import SCENARIOS, main
from benchmarks.queue.results import Run, make_rows, render_table
from benchmarks.queue.systems import PEERS, find_fault

BULLMQ = next(peer for peer in PEERS if peer.name == "bullmq")


@pytest.mark.timeout(240)
def test_every_scenario_runs_beside_bullmq(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A few jobs each: rates and CPU times are there, and the peer that is missing is said to be skipped."""
    found = tmp_path / "figures.json"
    arguments = ["--quick", "--jobs", "30", "--system", "tidings", "--system", "bullmq", "--json", str(found)]
    assert main(arguments) == 0
    printed, said = capsys.readouterr()
    rows = json.loads(found.read_text())
    assert {row["scenario"] for row in rows} == set(SCENARIOS)
    assert all(row["tidings"] >= 0 for row in rows)
    assert "| noop | rate, jobs/s |" in printed
    if (fault := find_fault(BULLMQ)) is None:
        assert all(row["peer_name"] == "bullmq" and row["runs"]["peer"] for row in rows)
    else:
        assert f"skipped BullMQ: {fault}" in said


@pytest.mark.timeout(240)
def test_growth_keeps_finished_jobs_while_it_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A waiting job's bytes, and the speed of a store with finished jobs beside an empty one's."""
    found = tmp_path / "figures.json"
    assert main(["--quick", "--scenario", "growth", "--kept", "1000", "--json", str(found)]) == 0
    rows = json.loads(found.read_text())
    assert {row["scenario"] for row in rows} == {
        "memory", "1,000 finished jobs: drain", "1,000 finished jobs: pickup",
    }  # fmt: skip
    assert {row["peer_name"] for row in rows} == {"", "empty store"}


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """A slow moment of the machine, in which both are slow, does not move it."""
    runs = [
        Run("noop", system, round_, {"jobs_per_s": rate})
        for round_, rates in enumerate([(200.0, 100.0), (20.0, 10.0), (330.0, 300.0)])
        for system, rate in zip(["tidings", "bullmq"], rates, strict=True)
    ]
    [row] = make_rows(runs)
    assert (row.tidings, row.peer, row.ratio) == (200.0, 100.0, 2.0)
    assert "| noop | rate, jobs/s | 200 (20.0–330) | bullmq | 100 (10.0–300) | 2.00 |" in render_table([row])
