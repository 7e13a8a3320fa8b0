"""Child processes that end with this one, however it ends: Ctrl-C, SIGTERM or kill -9.

Each child leads a process group of its own. So Ctrl-C in a terminal reaches the parent alone, which ends its
children in order, and a signal to a child's group reaches what it has started itself.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Literal, NamedTuple

__all__ = ["Tie", "TiedCommand", "end_child", "signal_group", "start_child", "tie_command"]

Tie = Literal["kernel", "pipe"]

_TETHER = str(Path(__file__).with_name("tether.py"))


class TiedCommand(NamedTuple):
    """What to start so that a command dies with this process: the words, and the descriptors it needs."""

    argv: list[str]
    pass_fds: tuple[int, ...]


@functools.cache
def _lifeline() -> tuple[int, int]:
    """The pipe whose write end only this process holds: it is closed when the process is gone, and not before."""
    return os.pipe()


def tie_command(argv: Sequence[str], tie: Tie | None = None) -> TiedCommand:
    """Wrap ``argv`` so that it is killed when this process dies.

    The kernel's tie (Linux) is to the *thread* that starts the command, so start it from the main thread.

    Args:
        argv: the command; its first word is looked up on PATH.
        tie: how; default: ``kernel`` on Linux, else ``pipe``.

    Raises:
        FileNotFoundError: there is no such command.
        RuntimeError: called from another thread than the main one, whose end would end the child.
    """
    program = shutil.which(argv[0])
    if program is None:
        raise FileNotFoundError(f"there is no command {argv[0]!r}")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("a child that is tied to this process can be started from its main thread alone")
    command = [program, *argv[1:]]
    if (tie or ("kernel" if sys.platform == "linux" else "pipe")) == "kernel":
        return TiedCommand([sys.executable, "-I", "-S", _TETHER, "kernel", str(os.getpid()), *command], ())
    read_end, _ = _lifeline()
    return TiedCommand([sys.executable, "-I", "-S", _TETHER, "pipe", str(read_end), *command], (read_end,))


def start_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    tie: Tie | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` in a process group of its own, tied to this process. End it with ``end_child``."""
    command = tie_command(argv, tie)
    return subprocess.Popen(  # noqa: S603  # the words come from our own code and the operator's settings
        command.argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=(*pass_fds, *command.pass_fds),
        process_group=0,
    )


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to the group that the child ``pid`` leads; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def end_child(child: subprocess.Popen[bytes], grace_s: float) -> int:
    """End a child and all of its group: SIGTERM, and SIGKILL after ``grace_s`` seconds. Returns its exit status."""
    # One that was reaped earlier is left alone: its number may be another's by now.
    if child.poll() is None:
        # To the child alone at first: what it has started is its own to end.
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
        # Also for what it has left behind in its group, such as a helper that it did not wait for.
        signal_group(child.pid, signal.SIGKILL)
        child.wait()
    return child.returncode
