"""What a job function of any Python system notes: when the first one began, when the last one ended, how late each began.

Times are of the machine's monotonic clock, which all its processes share. The notes are files, which the benchmark reads
when it has seen the end; a function itself only counts. Standard library alone: peers run in environments of their own.
"""

from __future__ import annotations

import json
import os
import threading
import time

__all__ = ["UPDATES", "begin", "end", "noted_message", "now_ms", "pick_up"]

UPDATES = 10
"""Progress updates of one job."""

_PATH = os.environ.get("BENCH_NOTES", "")
_JOBS = int(os.environ.get("BENCH_JOBS", "0"))

_lock = threading.Lock()
_begun = 0
_ended = 0
_latencies_ms: list[float] = []


def now_ms() -> float:
    """The machine's monotonic clock."""
    return time.monotonic_ns() / 1e6


def noted_message(number: int) -> dict[str, object]:
    """The progress that all systems report, from update 1 on."""
    return {"percent": 100 * number / UPDATES, "message": f"step {number} of {UPDATES}"}


def begin() -> None:
    """A job function begins."""
    global _begun
    _begun += 1
    if _begun == 1:
        _write("first", {"at_ms": now_ms(), "cpu_s": time.process_time(), "pid": os.getpid()})


def end() -> None:
    """A job function is about to return."""
    global _ended
    with _lock:
        _ended += 1
    if _ended == _JOBS:
        _write("last", {"at_ms": now_ms()})


def pick_up(sent_ms: float) -> None:
    """A job function begins that was submitted at this time."""
    with _lock:
        _latencies_ms.append(now_ms() - sent_ms)
    if len(_latencies_ms) == _JOBS:
        _write("latencies", _latencies_ms)


def _write(name: str, value: object) -> None:
    # Renamed into place, so that who sees it can read it.
    with open(f"{_PATH}.{name}.new", "w") as file:
        json.dump(value, file)
    os.replace(f"{_PATH}.{name}.new", f"{_PATH}.{name}")
