"""Trying whether job modules import, in a process of its own: what it loads is gone with it."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence

from tidings_tasks.child_process import signal_group, tie_command

__all__ = ["try_import"]


async def try_import(modules: Sequence[str], env: Mapping[str, str]) -> str | None:
    """Return why the modules do not import, or None when they do. Cancelled, it ends the process."""
    command = tie_command([sys.executable, "-m", "tidings_tasks.job_modules", *modules])
    process = await asyncio.create_subprocess_exec(
        *command.argv,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=command.pass_fds,
        process_group=0,
    )
    try:
        _, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            signal_group(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode == 0:
        return None
    return complaint.decode("utf-8", "replace") or f"importing ended with status {process.returncode}"
