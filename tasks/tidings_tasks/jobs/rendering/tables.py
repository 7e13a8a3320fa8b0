"""Plain values to a table that reads well: numbers right-aligned, the decimals of a column alike."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .blocks import Span, Table
from .request import Cell, TableData

__all__ = ["lay_out_values"]

_MAX_DECIMALS = 6
# From here a float no longer holds every integer, so digits would pretend a precision that is not there.
_EXACT_BELOW = 2.0**53
_NUMBER_LIKE = re.compile(r"\(?[+\-−]?\s?[$€£¥]?\s?\d[\d.,'’\s]*\s?(%|[$€£¥]|[A-Z]{3})?\)?")


def lay_out_values(data: TableData) -> Table:
    """Return ``data`` as a table of text."""
    columns = [[row[index] for row in data.rows] for index in range(len(data.columns))]
    texts = [_texts(column) for column in columns]
    return Table(
        columns=tuple((Span(name),) for name in data.columns),
        rows=tuple(tuple((Span(text),) if text else () for text in row) for row in zip(*texts, strict=True)),
        aligns=tuple("right" if _is_numeric(column) else "left" for column in columns),
    )


def _texts(column: Sequence[Cell]) -> list[str]:
    decimals = max((_decimals(value) for value in column if isinstance(value, float)), default=0)
    return [_text(value, decimals) for value in column]


def _text(value: Cell, decimals: int) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float() if abs(value) >= _EXACT_BELOW:
            return f"{value:.6g}"
        case int() | float():
            return (
                f"{value:.{decimals}f}"
                if decimals
                else f"{value:.0f}"
                if isinstance(value, float)
                else str(value)
            )
        case str():
            return value.strip()


def _decimals(value: float) -> int:
    if abs(value) >= _EXACT_BELOW:
        return 0
    return len(f"{value:.{_MAX_DECIMALS}f}".rstrip("0").partition(".")[2])


def _is_numeric(column: Sequence[Cell]) -> bool:
    filled = [value for value in column if value is not None and value != ""]
    return bool(filled) and all(
        _NUMBER_LIKE.fullmatch(value.strip()) is not None
        if isinstance(value, str)
        else not isinstance(value, bool)
        for value in filled
    )
