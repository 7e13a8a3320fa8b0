"""What a job uses: CPU time and memory, as the operating system tells them."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

__all__ = [
    "SHORT_TURN_NS",
    "ProcessMeter",
    "Usage",
    "begin_turn",
    "cpu_of_long_turn",
    "recent_rss_bytes",
    "rss_bytes",
]

SHORT_TURN_NS = 1_000_000
"""What runs on an event loop for a shorter time is taken to have computed all the time."""

_READ_EVERY_NS = 20_000_000
_RSS_KEPT_NS = 10_000_000

_STATM = Path("/proc/self/statm")
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# getrusage(2): ru_maxrss is in KiB on Linux, in bytes on macOS.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What one attempt used.

    ``memory_peak_bytes`` is the most memory (resident set) that its *process* had while it ran: in the process pool
    that is the job's alone, elsewhere it is shared with all that ran at the same time.
    """

    cpu_s: float
    memory_peak_bytes: int

    def to_json(self) -> str:
        """Encode as the store keeps it."""
        return orjson.dumps({"cpu_s": self.cpu_s, "memory_peak_bytes": self.memory_peak_bytes}).decode()


class _ThreadClock(threading.local):
    """When a thread's CPU time was last read, and what it was."""

    read_at_ns = 0
    cpu_ns = 0

    def read(self, now_ns: int) -> int:
        """Read it; returns how much was used since the last time."""
        before_ns, self.cpu_ns, self.read_at_ns = self.cpu_ns, time.thread_time_ns(), now_ns
        return self.cpu_ns - before_ns


_clock = _ThreadClock()


def begin_turn() -> int:
    """A coroutine is about to run up to its next await; returns the time on ``perf_counter_ns``.

    To read a thread's CPU time is a call of the kernel, which took a third of the time of a worker with short turns. So
    it is read now and then, and where a turn was long.
    """
    now_ns = time.perf_counter_ns()
    if now_ns - _clock.read_at_ns > _READ_EVERY_NS:
        _clock.read(now_ns)
    return now_ns


def cpu_of_long_turn(took_ns: int) -> int:
    """Return how much CPU time a turn used that just ended and took so long: at most 20 ms more than it did."""
    return min(took_ns, _clock.read(time.perf_counter_ns()))


def rss_bytes() -> int:
    """Return how much memory this process has now; its peak where the system does not tell, 0 where it tells nothing."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return _maxrss_bytes()


_recent_rss = (0, 0)


def recent_rss_bytes() -> int:
    """Return what ``rss_bytes`` does, or did at most 10 ms ago: jobs that end together need not each ask."""
    global _recent_rss
    now_ns = time.perf_counter_ns()
    if now_ns - _recent_rss[0] > _RSS_KEPT_NS:
        _recent_rss = (now_ns, rss_bytes())
    return _recent_rss[1]


class ProcessMeter:
    """Measures one piece of work that has a whole process to itself: from when it is made until ``read``."""

    def __init__(self) -> None:
        # Without this (proc(5), clear_refs) the peak is that of the process's life, so of all its jobs before.
        self._is_fresh = _reset_peak()
        self._cpu_s = _cpu_s()

    def read(self) -> Usage:
        """Return what was used, child processes that were waited for included in the CPU time."""
        peak = (_high_water_bytes() if self._is_fresh else 0) or _maxrss_bytes()
        return Usage(round(_cpu_s() - self._cpu_s, 6), peak)


def _reset_peak() -> bool:
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _high_water_bytes() -> int:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        return 0
    return 0


def _cpu_s() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _maxrss_bytes() -> int:
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * _MAXRSS_UNIT
