"""The data of a job's own events: checked at the call that sends them, encoded once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Literal

import orjson

from tidings.protocol.errors import FieldError, InvalidInput

__all__ = [
    "KEEP",
    "InvalidEvent",
    "Keep",
    "ProgressState",
    "check_text",
    "encode_log",
    "encode_output",
    "truncated_log",
]

_LEVELS = frozenset({"debug", "info", "warning", "error", "critical"})


class InvalidEvent(InvalidInput, ValueError):
    """What was to be sent is too large, is no JSON, or is out of range. Raised at the call, never later."""


class Keep(Enum):
    """The type of ``KEEP``."""

    KEEP = "keep"

    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final[Literal[Keep.KEEP]] = Keep.KEEP
"""Stands for "as it was": a progress field that is left out. None is a value: it clears the field."""


def _refuse(field: str, code: str, message: str) -> InvalidEvent:
    return InvalidEvent(f"{field}: {message}", errors=[FieldError(field=field, code=code, message=message)])


def _encode(kind: str, data: Any, max_bytes: int) -> bytes:
    try:
        text = orjson.dumps(data)
    except TypeError as error:
        raise _refuse(kind, "not_json", f"only JSON can be sent: {error}") from error
    if len(text) > max_bytes:
        raise _refuse(
            kind,
            "too_large",
            f"{len(text)} bytes; one event has at most {max_bytes}. Put large data into a file or the result",
        )
    return text


def _number(field: str, value: float | Keep | None, low: float, high: float) -> None:
    if value is None or value is KEEP:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse(field, "not_a_number", f"must be a number or None, not {type(value).__name__}")
    if not math.isfinite(value) or not low <= value <= high:
        raise _refuse(field, "out_of_range", f"must be finite and from {low:g} to {high:g}, not {value!r}")


def check_text(field: str, value: object) -> None:
    """Refuse what is neither a string, nor None, nor ``KEEP``.

    Raises:
        InvalidEvent: it is something else.
    """
    if value is not None and value is not KEEP and not isinstance(value, str):
        raise _refuse(field, "not_a_string", f"must be a string or None, not {type(value).__name__}")


class ProgressState:
    """An attempt's progress so far: fields that a call leaves out keep their value.

    ``percent`` follows from ``current`` and ``total`` until a call gives it.
    """

    def __init__(self) -> None:
        self._fields: dict[str, Any] = dict.fromkeys(
            ("percent", "message", "current", "total", "step", "eta_s", "meta")
        )
        self._derives_percent = True

    def encode(
        self,
        max_bytes: int,
        *,
        percent: float | Keep | None,
        message: str | Keep | None,
        current: float | Keep | None,
        total: float | Keep | None,
        step: str | Keep | None,
        eta_s: float | Keep | None,
        meta: Mapping[str, Any] | Keep | None,
    ) -> bytes:
        """Take over the fields of one call and return the whole progress as JSON.

        Raises:
            InvalidEvent: a field is out of range or no JSON; the progress stays as it was.
        """
        _number("progress.percent", percent, 0, 100)
        _number("progress.current", current, -1e15, 1e15)
        _number("progress.total", total, 0, 1e15)
        _number("progress.eta_s", eta_s, 0, 1e10)
        check_text("progress.message", message)
        check_text("progress.step", step)
        if meta is not KEEP and meta is not None and not isinstance(meta, Mapping):
            raise _refuse("progress.meta", "not_an_object", "must be a dict or None")
        given = {
            "percent": percent, "message": message, "current": current, "total": total,
            "step": step, "eta_s": eta_s, "meta": meta,
        }  # fmt: skip
        fields = self._fields | {name: value for name, value in given.items() if value is not KEEP}
        derives = self._derives_percent and percent is KEEP
        if derives and fields["current"] is not None and fields["total"]:
            fields["percent"] = round(min(100.0, max(0.0, 100 * fields["current"] / fields["total"])), 3)
        text = _encode("progress", fields, max_bytes)
        self._fields, self._derives_percent = fields, derives
        return text


def encode_log(max_bytes: int, level: str, message: str, fields: Mapping[str, Any]) -> bytes:
    """Encode a ``log`` event.

    Raises:
        InvalidEvent: the level is unknown, or the whole is too large or no JSON.
    """
    if level not in _LEVELS:
        raise _refuse("log.level", "unknown_level", f"must be one of {', '.join(sorted(_LEVELS))}")
    check_text("log.message", message)
    return _encode("log", {"level": level, "message": message, "fields": fields}, max_bytes)


def truncated_log(max_bytes: int, level: str, message: str, fields: Mapping[str, Any]) -> bytes:
    """Encode a record of ``logging``, which never fails: what is too long is cut, what is no JSON left out."""
    plain = {
        name[:64]: _clean(value, 256) if isinstance(value, str) else value
        for name, value in fields.items()
        if value is None or isinstance(value, str | bool | float) or _is_small_int(value)
    }
    text = _clean(message, max_bytes)
    whole = orjson.dumps({"level": level, "message": text, "fields": plain})
    if len(whole) <= max_bytes:
        return whole
    # A character takes at most six bytes ("\\u0000").
    cut = text[: (max_bytes - 200) // 6] + "…"
    return orjson.dumps({"level": level, "message": cut, "fields": {"truncated": True}})


def _is_small_int(value: object) -> bool:
    return isinstance(value, int) and abs(value) < 2**53


def _clean(text: str, max_chars: int) -> str:
    return text[:max_chars].encode("utf-8", "replace").decode()


def encode_output(max_bytes: int, chunk: Any, stream: str) -> bytes:
    """Encode an ``output`` event.

    Raises:
        InvalidEvent: the chunk is too large or no JSON, or the stream has no proper name.
    """
    check_text("output.stream", stream)
    if not 1 <= len(stream) <= 64:
        raise _refuse("output.stream", "bad_name", "must be a name of 1 to 64 characters")
    return _encode("output", {"chunk": chunk, "stream": stream}, max_bytes)
