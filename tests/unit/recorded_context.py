"""A job context that writes down what a job function calls, for tests of the function alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from tidings_tasks import JobContext

__all__ = ["Call", "RecordedContext"]

Call = tuple[str, dict[str, Any]]


class RecordedContext:
    """Has the calls that the tested functions use. ``on_call`` may raise, as a stopped job's context does."""

    def __init__(self, attempt: int = 1, on_call: Callable[[Call], None] = lambda call: None) -> None:
        self.attempt = attempt
        self.job_id = "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0"
        self.calls: list[Call] = []
        self.saved: dict[str, bytes] = {}
        self._on_call = on_call

    def as_context(self) -> JobContext:
        """Return this object as the type that job functions are annotated with."""
        return cast("JobContext", self)

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the arguments of each call of ``name``, in order."""
        return [arguments for called, arguments in self.calls if called == name]

    async def progress(self, percent: float | None = None, message: str | None = None, **fields: Any) -> None:
        """Record a progress call."""
        self._record("progress", {"percent": percent, "message": message, **fields})

    async def log(self, level: str, message: str, /, **fields: Any) -> None:
        """Record a log call."""
        self._record("log", {"level": level, "message": message, "fields": fields})

    async def output(self, chunk: Any, *, stream: str = "default") -> None:
        """Record an output call."""
        self._record("output", {"chunk": chunk, "stream": stream})

    async def flush(self) -> None:
        """Record a flush."""
        self._record("flush", {})

    async def save_file(self, name: str, data: bytes, media_type: str) -> Mapping[str, Any]:
        """Keep the file in memory."""
        self._record("save_file", {"name": name, "media_type": media_type})
        self.saved[name] = data
        return {"id": "0" * 26, "name": name, "media_type": media_type, "size_bytes": len(data)}

    def _record(self, name: str, arguments: dict[str, Any]) -> None:
        self.calls.append((name, arguments))
        self._on_call((name, arguments))
