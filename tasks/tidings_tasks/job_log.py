"""Standard ``logging`` inside a job reaches the job's log: a handler on the root logger that knows whose record it is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .attempt import Attempt
from .context import CURRENT, attempt_of
from .event_data import truncated_log
from .store import Verb

__all__ = ["JobLogHandler", "job_logging"]

_OWN_LOGGERS = ("tidings_tasks.worker.", "tidings_tasks.queue.", "tidings_tasks.store.", "dramatiq.")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JobLogHandler(logging.Handler):
    """Turns records of INFO and above into ``log`` events of the job they come from.

    It never waits: while a job's buffer is full its records are dropped and counted, and the next one that finds
    room is preceded by an event that says how many are missing.
    """

    def __init__(self, on_drop: Callable[[], None]) -> None:
        super().__init__(logging.INFO)
        self._on_drop = on_drop
        self._busy = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Send the record to its job, if it comes from one."""
        current = CURRENT.get()
        # What a message's own formatting logs would come back here for ever.
        if current is None or getattr(self._busy, "now", False) or record.name.startswith(_OWN_LOGGERS):
            return
        self._busy.now = True
        try:
            self._send(attempt_of(current), record)
        except Exception:
            self.handleError(record)
        finally:
            self._busy.now = False

    def _send(self, attempt: Attempt, record: logging.LogRecord) -> None:
        max_bytes = attempt.outbox.max_event_bytes
        data = truncated_log(max_bytes, _level(record.levelno), record.getMessage(), _fields(record))
        if attempt.dropped_logs:
            note = f"{attempt.dropped_logs} log records were dropped here: the job wrote faster than the store took"
            gap = truncated_log(max_bytes, "warning", note, {"logger": __name__})
            if attempt.outbox.offer(attempt, Verb.LOG, gap):
                attempt.dropped_logs = 0
        if not attempt.outbox.offer(attempt, Verb.LOG, data) and not attempt.is_closed:
            attempt.dropped_logs += 1
            self._on_drop()


@contextmanager
def job_logging(on_drop: Callable[[], None]) -> Iterator[None]:
    """Have the handler on the root logger, which lets INFO through; what other handlers show stays as it was."""
    root = logging.getLogger()
    level = root.level
    raised: list[tuple[logging.Handler, int]] = []
    if level > logging.INFO:
        for other in root.handlers:
            if other.level < level:
                raised.append((other, other.level))
                other.setLevel(level)
        root.setLevel(logging.INFO)
    handler = JobLogHandler(on_drop)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        if level > logging.INFO:
            root.setLevel(level)
        for other, its_level in raised:
            other.setLevel(its_level)


def _level(number: int) -> str:
    if number >= logging.CRITICAL:
        return "critical"
    if number >= logging.ERROR:
        return "error"
    return "warning" if number >= logging.WARNING else "info"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {"logger": record.name}
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields["exception"] = f"{type(error).__name__}: {error}"
    return fields | {name: value for name, value in vars(record).items() if name not in _STANDARD}
