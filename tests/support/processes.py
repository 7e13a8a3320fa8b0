"""Looking at processes from outside: who belongs to a stack, and whether anybody is left."""

from __future__ import annotations

import contextlib

import psutil

from .timing import scaled

__all__ = ["family_of", "is_running", "survivors"]


def is_running(pid: int) -> bool:
    """Say whether a process runs; one that is dead and not reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family_of(pid: int) -> list[psutil.Process]:
    """Return a process with all of its descendants."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def survivors(processes: list[psutil.Process], timeout_s: float = 10.0) -> list[str]:
    """Wait until all have ended, and describe those that have not; they are killed then."""
    _, alive = psutil.wait_procs(processes, timeout=scaled(timeout_s))
    left = []
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                left.append(f"{process.pid}: {' '.join(process.cmdline())}")
                process.kill()
    return left
