"""What every long-running command shares: how it is told to stop, says that it is ready, and notices who is gone."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable

from .tether import PR_SET_PDEATHSIG

__all__ = ["end_with_parent", "end_with_terminal", "notify_ready", "run_until_stopped", "settle_heap"]

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KERNEL_TELLS = sys.platform == "linux"
_PARENT_POLL_S = 0.5


def run_until_stopped(
    main: Callable[[asyncio.Event], Awaitable[None]], *, hurry: asyncio.Event | None = None
) -> None:
    """Run ``main`` on an event loop; the event it is given is set by SIGINT, SIGTERM or SIGHUP.

    ``main`` ends gracefully then, and the process returns from here. A second signal ends the process at once; or,
    where ``hurry`` is given, the second sets that, and a third ends the process at once.
    """
    asyncio.run(_run(main, hurry))


async def _run(main: Callable[[asyncio.Event], Awaitable[None]], hurry: asyncio.Event | None) -> None:
    stop = asyncio.Event()
    steps = [stop] if hurry is None else [stop, hurry]
    loop = asyncio.get_running_loop()
    # Under nohup SIGHUP is ignored, and stays so.
    numbers = [number for number in _STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]

    def take_step() -> None:
        steps.pop(0).set()
        if not steps:
            for number in numbers:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, take_step)
    await main(stop)


def notify_ready(ready_fd: int | None) -> None:
    """Write a newline to ``ready_fd`` and close it: the sign that a supervisor waits for. None: nobody waits."""
    if ready_fd is None:
        return
    # A supervisor that does not listen any more is no reason to end.
    with contextlib.suppress(OSError):
        os.write(ready_fd, b"\n")
    with contextlib.suppress(OSError):
        os.close(ready_fd)


def end_with_parent() -> None:
    """Send SIGTERM to this process when its parent ends, however that ends. Call from the main thread."""
    parent = os.getppid()
    if _KERNEL_TELLS:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="tidings-parent", daemon=True).start()


def end_with_terminal() -> None:
    """Send SIGHUP to this process when the terminal it was started in is closed.

    The kernel tells the session's leader alone, and some leaders, such as `make` in a window of its own, do not pass it on.
    """
    terminal = next((fd for fd in (0, 1, 2) if os.isatty(fd)), None)
    if terminal is None:
        return
    # No event is asked for: what remains is the hang-up, which is always told.
    poller = select.poll()
    poller.register(terminal, 0)

    def watch() -> None:
        poller.poll()
        os.kill(os.getpid(), signal.SIGHUP)

    threading.Thread(target=watch, name="tidings-terminal", daemon=True).start()


def settle_heap() -> None:
    """Take what was loaded out of the garbage collector's sight, and let it run less often.

    Cyclic collection took a quarter of a busy server's time; what is there after start-up lives as long as the process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
