"""The one Valkey that all systems are measured on: made for the run, emptied between measurements, its CPU time read.

It keeps an append-only file that is synced every second, as the embedded store of `tidings dev` and as BullMQ advises for
production. The file is not rewritten during a measurement: that is a second process, which starts when it likes.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tidings_tasks.embedded import EmbeddedValkey

__all__ = ["PERSISTENCE", "BenchStore"]

PERSISTENCE = "appendonly yes, appendfsync everysec, no rewrite during a measurement"
_REWRITE_S = 60.0


class BenchStore:
    """A Valkey for one run of the benchmark. A context manager."""

    def __init__(self, data_dir: Path) -> None:
        self._server = EmbeddedValkey(data_dir)

    @property
    def url(self) -> str:
        """The store's URL."""
        return self._server.url

    @property
    def socket(self) -> str:
        """The path of its socket."""
        return str(self._server.socket_path)

    @property
    def version(self) -> str:
        """Which Valkey it is."""
        return str(self.info("server")["valkey_version"])

    def __enter__(self) -> Self:
        self._server.start()
        # The client library types most replies as what either of its shells might return.
        self.client: Any = redis.Redis.from_url(self.url)
        self.client.config_set("auto-aof-rewrite-percentage", 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._server.stop()

    def info(self, section: str) -> dict[str, Any]:
        """Read a section of INFO."""
        found: dict[str, Any] = self.client.info(section)
        return found

    def cpu_s(self) -> float:
        """The CPU time of the server so far, of all its threads."""
        cpu = self.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    def used_bytes(self) -> int:
        """The memory that its data takes."""
        return int(self.info("memory")["used_memory"])

    def empty(self) -> None:
        """Remove everything, from the file too, and begin to count anew."""
        self.client.flushall()
        self.client.bgrewriteaof()
        deadline = time.monotonic() + _REWRITE_S
        while self.info("persistence")["aof_rewrite_in_progress"]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"Valkey did not rewrite its file within {_REWRITE_S:g} s")
            time.sleep(0.005)
        self.client.config_resetstat()
