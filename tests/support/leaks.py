"""Checks that a test leaves nothing running: no asyncio task, no child process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import psutil

from .timing import scaled

__all__ = ["describe_processes", "list_children", "wait_for_leaked_tasks"]

_GRACE_S = 1.0


def list_children() -> set[psutil.Process]:
    """List the child processes of this one that have not ended."""
    children = psutil.Process().children()
    return {child for child in children if child.status() != psutil.STATUS_ZOMBIE}


def describe_processes(processes: Iterable[psutil.Process]) -> list[str]:
    """Say which processes these are, for a message."""
    lines = []
    for process in processes:
        try:
            lines.append(f"{process.pid}: {' '.join(process.cmdline())}")
        except psutil.Error as error:
            lines.append(f"{process.pid}: {type(error).__name__}")
    return lines


async def wait_for_leaked_tasks(before: set[asyncio.Task[object]]) -> list[str]:
    """Return the names of tasks that were started since ``before`` and don't end within a second."""
    current = asyncio.current_task()
    started = {task for task in asyncio.all_tasks() if task not in before and task is not current}
    if not started:
        return []
    _, pending = await asyncio.wait(started, timeout=scaled(_GRACE_S))
    return sorted(f"{task.get_name()}: {task.get_coro()}" for task in pending)
