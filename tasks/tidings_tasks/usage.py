"""What a job uses: CPU time and memory, as the operating system tells them."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import orjson

__all__ = ["ProcessMeter", "Usage", "rss_bytes"]

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


def rss_bytes() -> int:
    """Return how much memory this process has now; its peak where the system does not tell, 0 where it tells nothing."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return _maxrss_bytes()


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
