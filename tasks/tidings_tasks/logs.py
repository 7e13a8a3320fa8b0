"""Logging of a process: JSON or text lines in UTC, with the request and job at hand, and no secret in them.

Modules log with the standard library, ``logging.getLogger(__name__)``, and pass what a program may want to read in
``extra={…}``. An entry point calls ``configure_logging`` once.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from .context import CURRENT

__all__ = [
    "REDACTED",
    "JsonFormatter",
    "Redactor",
    "TextFormatter",
    "configure_logging",
    "current_request_id",
]

current_request_id: ContextVar[str | None] = ContextVar("tidings_request_id", default=None)
"""The request that the running task serves; set by the server, None outside of one."""

REDACTED: Final = "[redacted]"

_TOKEN = re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_URL_PASSWORD = re.compile(r"(?<=://)([^\s:/@]*):[^\s/@]+@")
_NAMED_SECRET = re.compile(
    r"(?i)\b([a-z_-]*(?:password|passwd|secret|token|api[_-]?key))(['\"]?\s*[=:]\s*['\"]?)([^\s'\",;&}\]]{4,})"
)
_SECRET_FIELD = re.compile(r"(?i)password|passwd|secret|token|authorization|cookie|api_?key|credential")

# What every record has; the rest of a record was passed in `extra`.
_PLAIN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), 127)} | {9: " ", 10: "\\n", 13: "\\r"}


class Redactor:
    """Replaces secrets in what is logged: the ones it is told, and whatever looks like a token or a password.

    Args:
        secrets: values that must never appear, whatever they look like.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: one may be a part of another.
        self._secrets = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def redact(self, text: str) -> str:
        """Return the text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        text = _TOKEN.sub(REDACTED, text)
        text = _BEARER.sub(rf"\1 {REDACTED}", text)
        text = _URL_PASSWORD.sub(rf"\1:{REDACTED}@", text)
        return _NAMED_SECRET.sub(rf"\1\2{REDACTED}", text)

    def redact_value(self, value: Any, name: str = "") -> Any:
        """Return a JSON-ready copy of a value without secrets; a field that is named like one is replaced whole."""
        if _SECRET_FIELD.search(name) and isinstance(value, str | bytes):
            return REDACTED
        match value:
            case None | bool() | int():
                return value
            case float() if math.isfinite(value):
                return value
            case Mapping():
                return {str(key): self.redact_value(entry, str(key)) for key, entry in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self.redact_value(entry, name) for entry in value]
            case _:
                return self.redact(str(value))


class _Formatter(logging.Formatter):
    """What both formats share."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Collect what was passed in ``extra``, and the request and job at hand."""
        extra = {name: value for name, value in vars(record).items() if name not in _PLAIN_FIELDS}
        job = CURRENT.get()
        context = {"request_id": current_request_id.get(), "job_id": job.job_id if job is not None else None}
        known = {name: value for name, value in context.items() if value is not None}
        return {name: self._redactor.redact_value(value, name) for name, value in (known | extra).items()}

    def _message(self, record: logging.LogRecord) -> str:
        return self._redactor.redact(record.getMessage())

    def _traceback(self, record: logging.LogRecord) -> str | None:
        if not record.exc_info or record.exc_info[0] is None:
            return None
        return self._redactor.redact("".join(traceback.format_exception(*record.exc_info))).rstrip()


class JsonFormatter(_Formatter):
    """One JSON object a line: ``at, level, logger, message``, the fields, and ``traceback`` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "at": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._message(record),
        }
        line |= {name: value for name, value in self._fields(record).items() if name not in line}
        if text := self._traceback(record):
            line["traceback"] = text
        return json.dumps(line, separators=(",", ":"))


class TextFormatter(_Formatter):
    """One line for people, ``time level logger: message name=value``; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Control characters in it are escaped, so that nothing logged can pose as a line."""
        fields = "".join(f" {name}={value}" for name, value in self._fields(record).items())
        level = record.levelname.lower()
        line = f"{_timestamp(record)} {level:<8} {record.name}: {self._message(record)}{fields}".translate(
            _CONTROL
        )
        if text := self._traceback(record):
            line += "\n    " + text.replace("\n", "\n    ")
        return line


def configure_logging(
    level: str = "info",
    format: Literal["json", "text"] = "json",
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Send the logs of this process to ``stream`` (default: standard error). A second call replaces the first.

    Args:
        level: the least level that is logged.
        secrets: values that must not appear in any line.
    """
    redactor = Redactor(secrets)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(redactor) if format == "json" else TextFormatter(redactor))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)


def _timestamp(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
