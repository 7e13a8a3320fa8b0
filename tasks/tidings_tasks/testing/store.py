"""A job store in this process, for tests: the real commands and scripts, on a Valkey of plain dictionaries.

It is no second implementation. Submissions, claims, retries, cancellation and events are decided by the same Lua files
that a real store runs, and read by the same Python, so a job does here what it does there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ..store import Command, Keyspace, SyncStore
from ..store.scripts import Script, load_attach
from .lua import ScriptRunner
from .valkey import Clock, MemoryValkey

__all__ = ["LEASE_MS", "MemoryStore"]

T = TypeVar("T")

LEASE_MS = 3_650 * 86_400_000
"""Ten years: time that is skipped never takes a job from the function that runs it."""


class MemoryStore(SyncStore):
    """Has one shard. Thread-safe. Nobody has to close it.

    Raises:
        LuaMissing: the library that runs the scripts is not installed.
    """

    def __init__(self, clock: Clock, keyspace: Keyspace | None = None) -> None:
        super().__init__("redis://in-memory.invalid", keyspace or Keyspace("test"), lease_s=LEASE_MS / 1000)
        self.clock = clock
        self.ids: list[str] = []
        """All jobs that there were, in the order in which they were stored."""
        self.on_stored: Callable[[list[str]], None] = lambda ids: None
        """Called after jobs were submitted, with their ids."""
        # Where lua/prelude.lua says that what never changes of a job is kept.
        self._specs = f"{self.keyspace.shard(0)}:m:".encode()
        self.valkey = MemoryValkey(clock, self._note)
        """What is kept, for tests of this very store."""
        self._runner = ScriptRunner(self.valkey)
        self._lock = threading.RLock()

    def run(self, command: Command[T]) -> T:
        """Run a command."""
        with self._lock:
            known = len(self.ids)
            reply = super().run(command)
            made = self.ids[known:]
        # What a worker's step stores, as the next job of a flow, is not submitted by anybody.
        if made and command.script != "step":
            self.on_stored(made)
        return reply

    def wait(self, keys: list[str], timeout_s: float) -> tuple[str, bytes] | None:
        """Refuse: that is what workers do, and no worker serves this store."""
        raise NotImplementedError("jobs in memory are run by the test, not by a worker")

    def close(self) -> None:
        """Do nothing: there is nothing to close, and what is kept can still be read."""

    def attach(self, args: list[Any]) -> Any:
        """Run ``attach.lua``: ``args`` are the number of keys, the keys, and the arguments."""
        count, *rest = args
        return self._runner.evaluate(load_attach(), rest[:count], rest[count:])

    def _note(self, key: bytes) -> None:
        if key.startswith(self._specs):
            self.ids.append(key.removeprefix(self._specs).decode())

    def _attach(self, shard: int) -> Any:
        return self.attach(self._attach_args(shard))

    def _evaluate(self, script: Script, args: list[Any]) -> Any:
        count, *rest = args
        return self._runner.run(script, rest[:count], rest[count:])
