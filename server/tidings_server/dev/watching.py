"""Which files belong to job modules, and waiting until one of them changes."""

from __future__ import annotations

import asyncio
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from watchfiles import PythonFilter, awatch

__all__ = ["SourceTree", "find_sources", "watch_sources"]

# One save in an editor is several changes: those within this time are one.
_QUIET_MS = 100


class SourceTree(NamedTuple):
    """A directory whose Python files are watched; ``recursive``: with those below it."""

    directory: Path
    recursive: bool


def find_sources(modules: Iterable[str]) -> list[SourceTree]:
    """Return where the source of these modules is: a whole package, or the directory of a single file.

    Nothing is imported for it. What was installed into ``site-packages`` is not watched: it does not change by editing.
    """
    found: set[SourceTree] = set()
    for module in modules:
        spec = _find_spec(module.partition(".")[0])
        if spec is None:
            continue
        if spec.submodule_search_locations:
            found |= {SourceTree(Path(place).resolve(), True) for place in spec.submodule_search_locations}
        elif spec.origin is not None:
            found.add(SourceTree(Path(spec.origin).resolve().parent, False))
    return sorted(tree for tree in found if "site-packages" not in tree.directory.parts)


async def watch_sources(
    trees: Iterable[SourceTree], on_change: Callable[[list[Path]], Awaitable[None]]
) -> None:
    """Call ``on_change`` with the Python files that have changed, each time that some have, until cancelled."""
    trees = list(trees)
    lock = asyncio.Lock()

    async def watch(recursive: bool) -> None:
        places = [tree.directory for tree in trees if tree.recursive is recursive]
        if not places:
            return
        async for found in awatch(*places, watch_filter=PythonFilter(), step=_QUIET_MS, recursive=recursive):
            async with lock:
                await on_change(sorted({Path(path) for _, path in found}))

    async with asyncio.TaskGroup() as group:
        group.create_task(watch(True), name="watch-packages")
        group.create_task(watch(False), name="watch-modules")


def _find_spec(name: str) -> importlib.machinery.ModuleSpec | None:
    path = [os.getcwd(), *sys.path]
    return importlib.machinery.PathFinder.find_spec(name, path) or importlib.util.find_spec(name)
