"""The job context: what a job function uses to report progress, log, send output and learn that it is to stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .event_data import KEEP, Keep, ProgressState, check_text, encode_log, encode_output
from .streams import OutputStream, SyncOutputStream
from .tracking import AsyncTrack, Tracker

if TYPE_CHECKING:
    from .attempt import Attempt
    from .files import StoredFile
    from .store import Verb
    from .waiting import Waiter

__all__ = ["CURRENT", "JobContext", "SyncJobContext", "attempt_of", "current_job"]

T = TypeVar("T")

_Busy: TypeAlias = "Callable[[Attempt], Waiter | None]"

CURRENT: ContextVar[JobContext | SyncJobContext | None] = ContextVar("tidings_current_job", default=None)
"""The context of the job that runs here; tasks and threads started by ``asyncio`` inherit it."""


def current_job() -> JobContext | SyncJobContext:
    """Return the context of the job that runs here, for code that is not handed one, such as a plain actor.

    Inside an ``async def`` it is a ``JobContext``, whose calls are awaited; else a ``SyncJobContext``.

    Raises:
        LookupError: no job runs here.
    """
    found = CURRENT.get()
    if found is None:
        raise LookupError("no job runs here: current_job() works inside a job function or an actor only")
    return found


def attempt_of(context: JobContext | SyncJobContext) -> Attempt:
    """Return the attempt behind a context, for the worker's own use."""
    return context._attempt  # noqa: SLF001  # of this module's own class


class _Context:
    """What both contexts know and check alike."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._progress = ProgressState()

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._attempt.job_id

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._attempt.number

    @property
    def owner(self) -> str:
        """Whose the job is."""
        return self._attempt.spec.owner

    @property
    def org(self) -> str | None:
        """The owner's organisation."""
        return self._attempt.spec.org

    @property
    def metadata(self) -> dict[str, Any]:
        """What was kept with the job at its submission; a copy."""
        return dict(self._attempt.spec.metadata or {})

    @property
    def cancelled(self) -> bool:
        """Whether the job was cancelled. The next context call or await raises ``JobCancelled``."""
        return self._attempt.stop == "cancelled"

    @property
    def shutting_down(self) -> bool:
        """Whether the worker is shutting down: the function may end early, else the job is handed back."""
        return self._attempt.is_shutting_down()

    def _put(self, verb: Verb, data: bytes) -> None:
        if not self._attempt.outbox.put(self._attempt, verb, data):
            self._attempt.check()

    def _join(self, stream: str, text: str) -> None:
        check_text("output.chunk", text)
        self._attempt.check()
        if not self._attempt.outbox.join(self._attempt, stream, text):
            self._attempt.check()

    def _encode_progress(self, **fields: Any) -> bytes:
        return self._progress.encode(self._attempt.outbox.max_event_bytes, **fields)

    def _encode_log(self, level: str, message: str, fields: Mapping[str, Any]) -> bytes:
        return encode_log(self._attempt.outbox.max_event_bytes, level, message, fields)

    def _encode_output(self, chunk: Any, stream: str) -> bytes:
        return encode_output(self._attempt.outbox.max_event_bytes, chunk, stream)

    def _save_file(self, name: str, data: bytes, media_type: str) -> StoredFile:
        files, spec = self._attempt.files, self._attempt.spec
        if files is None:
            raise RuntimeError("this worker has no place for files")
        with files.create(spec.owner, spec.org, name, media_type) as writer:
            writer.write(data)
            return writer.finish()


class JobContext(_Context):
    """The context of an ``async`` job function. All calls belong on the function's event loop.

    What is sent goes to the store at once, in batches; a call waits only while too much is waiting (as when the
    store is away). Each call may raise ``JobStopped``, when the job is to stop.
    """

    async def progress(
        self,
        percent: float | Keep | None = KEEP,
        message: str | Keep | None = KEEP,
        *,
        current: float | Keep | None = KEEP,
        total: float | Keep | None = KEEP,
        step: str | Keep | None = KEEP,
        eta_s: float | Keep | None = KEEP,
        meta: Mapping[str, Any] | Keep | None = KEEP,
    ) -> None:
        """Send one progress event. Fields that are left out keep their last value, None clears one.

        Args:
            percent: 0 to 100; left out, it follows from ``current`` and ``total`` until a call gives it.
            eta_s: seconds until the end, as the function expects.
            meta: any JSON object of the author's own.

        Raises:
            InvalidEvent: a value is out of range, no JSON, or too large.
        """
        self._attempt.check()
        data = self._encode_progress(
            percent=percent, message=message, current=current, total=total, step=step, eta_s=eta_s, meta=meta
        )
        await self._send("progress", data)

    async def log(self, level: str, message: str, /, **fields: Any) -> None:
        """Send one log event. ``level``: debug, info, warning, error or critical.

        Raises:
            InvalidEvent: the level is unknown, or a field is no JSON or too large.
        """
        self._attempt.check()
        await self._send("log", self._encode_log(level, message, fields))

    async def output(self, chunk: Any, *, stream: str = "default") -> None:
        """Send one output event: a string or any JSON.

        Raises:
            InvalidEvent: the chunk is no JSON or too large.
        """
        self._attempt.check()
        await self._send("output", self._encode_output(chunk, stream))

    def stream(self, name: str = "default") -> OutputStream:
        """Return a stream that joins what is written within 50 ms into one output event, as for LLM tokens."""
        return OutputStream(self._write_stream, name)

    def track(
        self,
        items: Iterable[T] | AsyncIterable[T],
        *,
        message: str | Keep | None = KEEP,
        total: int | None = None,
    ) -> AsyncIterator[T]:
        """Iterate over ``items`` with ``async for``, and report how far the loop is.

        Args:
            total: how many there are, where ``len(items)`` cannot tell.
        """
        return AsyncTrack(
            self.progress, items, Tracker(items, total, {} if message is KEEP else {"message": message})
        )

    async def flush(self) -> None:
        """Wait until the store has all that was sent so far."""
        await self._wait_while(self._attempt.outbox.stored)

    async def save_file(
        self, name: str, data: bytes, media_type: str = "application/octet-stream"
    ) -> dict[str, Any]:
        """Keep a file that belongs to the job's owner, and return its ``FileInfo`` as a dict for the result.

        Raises:
            PayloadTooLarge: it is larger than the installation allows.
            UnsupportedMediaType: ``media_type`` is not of the form ``type/subtype``.
        """
        self._attempt.check()
        stored = await asyncio.to_thread(self._save_file, name, data, media_type)
        return stored.info.model_dump(mode="json")

    async def _write_stream(self, name: str, text: str) -> None:
        self._join(name, text)
        await self._give_way()

    async def _send(self, verb: str, data: bytes) -> None:
        self._put(_verb(verb), data)
        await self._give_way()

    async def _give_way(self) -> None:
        # Lets the committer send what was just written, even if the function computes for long after this.
        await asyncio.sleep(0)
        await self._wait_while(self._attempt.outbox.room)

    async def _wait_while(self, busy: _Busy) -> None:
        while (waiter := busy(self._attempt)) is not None:
            await waiter.wait_here()
            self._attempt.check()


class SyncJobContext(_Context):
    """The context of a plain (not ``async``) job function: the same calls, without ``await``. Any thread may use it."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__(attempt)
        self._lock = threading.Lock()

    def progress(
        self,
        percent: float | Keep | None = KEEP,
        message: str | Keep | None = KEEP,
        *,
        current: float | Keep | None = KEEP,
        total: float | Keep | None = KEEP,
        step: str | Keep | None = KEEP,
        eta_s: float | Keep | None = KEEP,
        meta: Mapping[str, Any] | Keep | None = KEEP,
    ) -> None:
        """Send one progress event; see ``JobContext.progress``."""
        self._attempt.check()
        with self._lock:
            data = self._encode_progress(
                percent=percent,
                message=message,
                current=current,
                total=total,
                step=step,
                eta_s=eta_s,
                meta=meta,
            )
            self._put(_verb("progress"), data)
        self._wait_while(self._attempt.outbox.room)

    def log(self, level: str, message: str, /, **fields: Any) -> None:
        """Send one log event; see ``JobContext.log``."""
        self._attempt.check()
        self._put(_verb("log"), self._encode_log(level, message, fields))
        self._wait_while(self._attempt.outbox.room)

    def output(self, chunk: Any, *, stream: str = "default") -> None:
        """Send one output event; see ``JobContext.output``."""
        self._attempt.check()
        self._put(_verb("output"), self._encode_output(chunk, stream))
        self._wait_while(self._attempt.outbox.room)

    def stream(self, name: str = "default") -> SyncOutputStream:
        """Return a stream that joins what is written within 50 ms into one output event."""
        return SyncOutputStream(self._write_stream, name)

    def track(
        self, items: Iterable[T], *, message: str | Keep | None = KEEP, total: int | None = None
    ) -> Iterator[T]:
        """Iterate over ``items`` with ``for``, and report how far the loop is; see ``JobContext.track``."""
        tracker = Tracker(items, total, {} if message is KEEP else {"message": message})
        for item in items:
            if (due := tracker.due()) is not None:
                self.progress(**due)
            tracker.count()
            yield item
        if (due := tracker.end()) is not None:
            self.progress(**due)

    def flush(self) -> None:
        """Wait until the store has all that was sent so far."""
        self._wait_while(self._attempt.outbox.stored)

    def save_file(
        self, name: str, data: bytes, media_type: str = "application/octet-stream"
    ) -> dict[str, Any]:
        """Keep a file that belongs to the job's owner; see ``JobContext.save_file``."""
        self._attempt.check()
        return self._save_file(name, data, media_type).info.model_dump(mode="json")

    def _write_stream(self, name: str, text: str) -> None:
        self._join(name, text)
        self._wait_while(self._attempt.outbox.room)

    def _wait_while(self, busy: _Busy) -> None:
        while (waiter := busy(self._attempt)) is not None:
            waiter.wait()
            self._attempt.check()


@cache
def _verb(name: str) -> Verb:
    # The store's code needs the worker's libraries; a module that only declares jobs does not.
    from .store import Verb

    return Verb(name)
