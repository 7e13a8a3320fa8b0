"""What was measured, as rows: medians with their spread, and ratios of what ran next to each other."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .measuring import Figures

__all__ = ["METRICS", "Run", "make_rows", "render_table"]

METRICS: Mapping[str, tuple[str, str, bool]] = {
    "jobs_per_s": ("jobs/s", "rate", True),
    "p50_ms": ("ms", "p50", False),
    "p99_ms": ("ms", "p99", False),
    "store_cpu_us": ("µs", "store CPU a job", False),
    "worker_cpu_us": ("µs", "worker CPU a job", False),
    "producer_cpu_us": ("µs", "producer CPU a job", False),
    "bytes_per_job": ("bytes", "memory a waiting job", False),
}
"""Unit, title, and whether more is better."""


@dataclass(frozen=True)
class Run:
    """One measurement: which scenario, which system, in which round."""

    scenario: str
    system: str
    round: int
    figures: Figures


@dataclass(frozen=True)
class Row:
    """One metric of one scenario, Tidings beside a peer. ``ratio`` is the median of the rounds' ratios."""

    scenario: str
    metric: str
    unit: str
    tidings: float
    peer: float
    peer_name: str
    ratio: float
    more_is_better: bool
    runs: dict[str, list[float]]

    def to_json(self) -> dict[str, Any]:
        """As it goes into the file; what is not known is null there."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def make_rows(runs: Sequence[Run]) -> list[Row]:
    """Compare Tidings with each peer that ran the same scenario."""
    rows = []
    for scenario in dict.fromkeys(run.scenario for run in runs):
        of_scenario = [run for run in runs if run.scenario == scenario]
        peers = [name for name in dict.fromkeys(run.system for run in of_scenario) if name != "tidings"]
        metrics = dict.fromkeys(metric for run in of_scenario for metric in run.figures)
        for peer in peers or [""]:
            for metric in metrics:
                ours, theirs = _values(of_scenario, "tidings", metric), _values(of_scenario, peer, metric)
                both = [name for name in ours if name in theirs]
                ratios = [ours[name] / theirs[name] for name in both if theirs[name]]
                unit, _, more_is_better = METRICS[metric]
                rows.append(
                    Row(
                        scenario, metric, unit, _median(ours.values()), _median(theirs.values()), peer,
                        _median(ratios), more_is_better, {"tidings": [*ours.values()], "peer": [*theirs.values()]},
                    )
                )  # fmt: skip
    return rows


def render_table(rows: Iterable[Row]) -> str:
    """Markdown: medians (least–most), and the ratio to the peer."""
    lines = ["| scenario | metric | Tidings | peer | | ratio |", "|---|---|---|---|---|---|"]
    for row in rows:
        unit, title, _ = METRICS[row.metric]
        ours, theirs = _show(row.runs["tidings"]), _show(row.runs["peer"])
        ratio = "" if row.ratio != row.ratio else f"{row.ratio:.2f}"  # not a number: no peer
        lines.append(f"| {row.scenario} | {title}, {unit} | {ours} | {row.peer_name} | {theirs} | {ratio} |")
    return "\n".join(lines)


def _values(runs: Iterable[Run], system: str, metric: str) -> dict[int, float]:
    return {run.round: run.figures[metric] for run in runs if run.system == system and metric in run.figures}


def _median(values: Iterable[float]) -> float:
    found = list(values)
    return statistics.median(found) if found else float("nan")


def _show(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{_round(statistics.median(values))} ({_round(min(values))}–{_round(max(values))})"


def _round(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
