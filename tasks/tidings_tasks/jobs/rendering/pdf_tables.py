"""Tables in a PDF: widths by content, the header repeated on each page, zebra rows, rows split when too high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from .blocks import Align, Inline, Table
from .columns import cap_words, share_width
from .pdf_lines import Line, LineBreaker
from .pdf_pages import ACCENT, CENTRE, FAINT, PALE, POINT, Colour, Pages

__all__ = ["draw_table"]

_SIZES = tuple(points * POINT for points in (9, 8, 7, 6))
_PAD_X = 1.8
_PAD_Y = 1.1
_LEADING = 1.32
# A header higher than this part of a page is not repeated: it would leave no room for rows.
_HIGHEST_HEADER = 0.25
# A table of no more rows is moved to the next page rather than cut in two.
_TOGETHER = 12


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where the columns are, and how large the type is."""

    x: float
    widths: tuple[float, ...]
    aligns: tuple[Align, ...]
    size: float

    @property
    def leading(self) -> float:
        return self.size * _LEADING


def draw_table(pages: Pages, table: Table, x: float, width: float) -> None:
    """Draw ``table`` from ``pages.y`` on, over as many pages as it takes."""
    table = replace(table, columns=tuple(_in_bold(column) for column in table.columns))
    grid = _fit(pages.breaker, table, x, width)
    header = _break_row(pages.breaker, table.columns, grid)
    repeat = _height(header, grid) <= pages.full_room * _HIGHEST_HEADER
    rows = (_break_row(pages.breaker, row, grid) for row in table.rows)
    first = list(islice(rows, _TOGETHER))
    whole = _height(header, grid) + sum(_height(cells, grid) for cells in first)
    if len(table.rows) <= _TOGETHER and whole <= pages.full_room / 2:
        pages.need(whole)
    else:
        pages.need(_height(header, grid) + 2 * (grid.leading + 2 * _PAD_Y))
    _draw_row(pages, grid, header, FAINT, again=None)
    for number, cells in enumerate(chain(first, rows)):
        again = header if repeat else None
        if _height(cells, grid) > pages.room and pages.room < pages.full_room * 0.9:
            _go_on(pages, grid, again)
        _draw_row(pages, grid, cells, PALE if number % 2 else None, again)
    pages.box(grid.x, pages.y, sum(grid.widths), 0.25, ACCENT)


def _in_bold(text: Inline) -> Inline:
    return tuple(replace(span, bold=True) for span in text)


def _fit(breaker: LineBreaker, table: Table, x: float, width: float) -> _Grid:
    """Choose the largest type in which no word must be broken, else the smallest."""
    columns = list(zip(table.columns, *table.rows, strict=True))
    # Measured once in type of size 1: widths grow with the size.
    naturals = [max(breaker.natural_width(cell, 1) for cell in column) for column in columns]
    natural = _padded(naturals, size := _SIZES[0])
    least = natural
    if sum(natural) > width:
        words = [max(breaker.longest_word(cell, 1) for cell in column) for column in columns]
        for size in _SIZES:
            natural, least = _padded(naturals, size), cap_words(_padded(words, size), width)
            if sum(least) <= width:
                break
    return _Grid(x, share_width(natural, least, width), table.aligns, size)


def _padded(widths: Sequence[float], size: float) -> list[float]:
    return [width * size + 2 * _PAD_X for width in widths]


def _break_row(breaker: LineBreaker, row: Sequence[Inline], grid: _Grid) -> list[list[Line]]:
    # The slack covers rounding: a cell that defines its column's width must not wrap in it.
    return [
        breaker.lines(cell, grid.size, width - 2 * _PAD_X + 1e-6)
        for cell, width in zip(row, grid.widths, strict=True)
    ]


def _height(cells: Sequence[Sequence[Line]], grid: _Grid) -> float:
    return max(len(lines) for lines in cells) * grid.leading + 2 * _PAD_Y


def _go_on(pages: Pages, grid: _Grid, header: list[list[Line]] | None) -> None:
    pages.add_page()
    if header is not None:
        _draw_row(pages, grid, header, FAINT, again=None)


def _draw_row(
    pages: Pages,
    grid: _Grid,
    cells: Sequence[Sequence[Line]],
    fill: Colour | None,
    again: list[list[Line]] | None,
) -> None:
    """Draw a row; what does not fit on the page goes on below ``again``, the header, on the next."""
    total = max(len(lines) for lines in cells)
    start = 0
    while start < total:
        take = min(max(int((pages.room - 2 * _PAD_Y) / grid.leading), 1), total - start)
        height = take * grid.leading + 2 * _PAD_Y
        if fill is not None:
            pages.box(grid.x, pages.y, sum(grid.widths), height, fill)
        x = grid.x
        for lines, width, align in zip(cells, grid.widths, grid.aligns, strict=True):
            for place, line in enumerate(lines[start : start + take]):
                middle = pages.y + _PAD_Y + (place + 0.5) * grid.leading
                pages.write(line, x + _indent(line, width, align), middle + grid.size * CENTRE)
            x += width
        pages.y += height
        start += take
        if start < total:
            _go_on(pages, grid, again)


def _indent(line: Line, width: float, align: Align) -> float:
    match align:
        case "left":
            return _PAD_X
        case "center":
            return (width - line.width) / 2
        case "right":
            return width - _PAD_X - line.width
