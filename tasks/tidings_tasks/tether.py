"""Runs one command that cannot outlive the process that asked for it; run by path, never imported.

``python -I -S tether.py kernel PARENT_PID COMMAND …`` asks the Linux kernel to kill the command when its parent
dies, then becomes the command. ``python -I -S tether.py pipe FD COMMAND …`` is for other systems: it stays, as the
command's parent, and kills its whole process group when the other end of the pipe is closed.

It uses the standard library alone and none of our modules, so that it costs 20 ms and not 200.
"""

import os
import signal
import subprocess
import sys
import threading

__all__: list[str] = []

PR_SET_PDEATHSIG = 1
CANNOT_TIE = 125


def tie_by_kernel(parent_pid: int, command: list[str]) -> None:
    """Become ``command``, to be killed with the thread that started this process (prctl(2), PR_SET_PDEATHSIG)."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        sys.exit(CANNOT_TIE)
    # A parent that died before the call above is not noticed by the kernel any more.
    if os.getppid() != parent_pid:
        sys.exit(CANNOT_TIE)
    # Python ignores SIGPIPE, and what is ignored stays so across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606  # no shell is wanted


def tie_by_pipe(lifeline_fd: int, command: list[str]) -> None:
    """Run ``command``, and kill this process group when ``lifeline_fd`` is at its end."""
    os.set_inheritable(lifeline_fd, False)
    child = subprocess.Popen(command, close_fds=False)  # noqa: S603  # the words come from our own code
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: child.send_signal(number))

    def watch() -> None:
        while os.read(lifeline_fd, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    if code < 0:
        if -code in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    how, link, *argv = sys.argv[1:]
    {"kernel": tie_by_kernel, "pipe": tie_by_pipe}[how](int(link), argv)
