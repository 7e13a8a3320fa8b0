"""Measuring a process and the turns of coroutines, also where the system tells less."""

from __future__ import annotations

import time
from pathlib import Path

import orjson
import pytest

from tidings_tasks import usage
from tidings_tasks.usage import ProcessMeter, Usage, rss_bytes


def spin(seconds: float) -> None:
    """Use the processor for so long."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_a_process_meter_tells_what_was_used_since() -> None:
    """CPU time, and the peak of the memory although it is free again."""
    before_bytes = rss_bytes()
    meter = ProcessMeter()
    block = b"x" * 100_000_000
    del block
    spin(0.05)
    used = meter.read()
    assert 0.04 < used.cpu_s < 5
    assert used.memory_peak_bytes > before_bytes + 90_000_000
    assert ProcessMeter().read().memory_peak_bytes < used.memory_peak_bytes


def test_where_the_peak_cannot_be_reset_the_processes_own_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in some sandboxes: a figure that is too high rather than none."""
    monkeypatch.setattr(usage, "_CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    monkeypatch.setattr(usage, "_STATM", tmp_path / "missing" / "statm")
    assert ProcessMeter().read().memory_peak_bytes > 1_000_000
    assert rss_bytes() > 1_000_000


def test_usage_is_kept_as_json() -> None:
    """Numbers alone."""
    text = Usage(0.000001, 81248256).to_json()
    assert orjson.loads(text) == {"cpu_s": 1e-06, "memory_peak_bytes": 81248256}
