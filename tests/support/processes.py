"""Looking at processes from outside: who belongs to a stack, and whether anybody is left."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from collections.abc import Mapping, Sequence

import psutil

from .timing import scaled

__all__ = ["family_of", "is_running", "open_in_terminal", "survivors"]

_TAKE_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


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


def open_in_terminal(argv: Sequence[str], env: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a program, given by its path, as the leader of a new terminal; return it and the terminal's other end."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *argv],
            env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(slave)
    return process, master
