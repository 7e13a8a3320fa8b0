"""What the parts of a run have seen, as JSON lines; written from any thread, judged when all is over."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Self

import orjson

__all__ = ["History", "now_ms", "read_history"]


def now_ms() -> int:
    """The time on the clock that the store reads too, since both are on one machine."""
    return time.time_ns() // 1_000_000


class History:
    """Appends entries to a file. Close it, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._lock = threading.Lock()

    def add(self, what: str, **fields: Any) -> None:
        """Add an entry, with the time."""
        line = orjson.dumps({"what": what, "at_ms": now_ms()} | fields) + b"\n"
        with self._lock:
            self._file.write(line)

    def close(self) -> None:
        """Write all out."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the entries back."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
