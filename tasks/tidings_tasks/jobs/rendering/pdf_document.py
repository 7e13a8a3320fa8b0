"""A report as PDF: the title, and each section's blocks set one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from .blocks import Block, Code, Heading, Inline, Items, Paragraph, Quote, Rule, Span, Table
from .document import Rendered, dated
from .markdown import read_markdown
from .pdf_lines import CODE_SCALE, Line
from .pdf_pages import ACCENT, CENTRE, FAINT, INK, MUTED, PALE, POINT, Colour, Pages
from .pdf_tables import draw_table
from .request import Section
from .tables import lay_out_values

__all__ = ["PdfDocument"]

_BODY = 10 * POINT
_LEADING = 1.5
_GAP = 2.8
_HEADINGS = {1: 16 * POINT, 2: 13 * POINT, 3: 11.5 * POINT, 4: 10.5 * POINT}
_INDENT = 6.5
_QUOTE_INDENT = 5.0
_CODE_PAD = 2.2
_BULLETS = "•–▪"
# Deeper nesting stays where it is, or a hostile text would leave no width to write in.
_DEEPEST = 8


class PdfDocument:
    """Implements ``Document``."""

    def __init__(self, title: str, sections: int, created_at: datetime) -> None:
        self._pages = Pages(title, created_at)
        self._draw_title(title, dated(created_at, sections))

    def add(self, section: Section) -> None:
        """Draw one more section."""
        self._draw_heading(1, (Span(section.heading),), bookmark=section.heading)
        pages = self._pages
        if section.markdown:
            self._draw_blocks(read_markdown(section.markdown), pages.left, pages.width, depth=0)
        if section.table:
            draw_table(pages, lay_out_values(section.table), pages.left, pages.width)
            pages.y += _GAP
        pages.y += 2 * _GAP

    def finish(self) -> Rendered:
        """Return the file and the number of its pages."""
        pages = self._pages.count
        data = self._pages.finish()
        return Rendered(data, "application/pdf", pages=pages, undrawable=frozenset(self._pages.replaced()))

    def _draw_title(self, title: str, subtitle: str) -> None:
        pages = self._pages
        pages.box(pages.left, pages.y, 26, 1.4, ACCENT)
        pages.y += 6
        size = 25 * POINT
        self._draw_lines(
            pages.breaker.lines((Span(title, bold=True),), size, pages.width), pages.left, size, 1.25
        )
        pages.y += 1.5
        size = 10 * POINT
        self._draw_lines(
            pages.breaker.lines((Span(subtitle),), size, pages.width), pages.left, size, _LEADING, MUTED
        )
        pages.y += 4
        pages.box(pages.left, pages.y, pages.width, 0.25, FAINT)
        pages.y += 8

    def _draw_heading(self, level: int, text: Inline, *, bookmark: str | None = None) -> None:
        pages, size = self._pages, _HEADINGS[level]
        bold = tuple(replace(span, bold=True) for span in text)
        lines = pages.breaker.lines(bold, size, pages.width)
        # A heading stays with the first two lines below it.
        pages.need(len(lines) * size * 1.3 + _GAP + 2 * _BODY * _LEADING)
        if level > 1 and pages.y > pages.top:
            pages.y += _GAP * 0.6
        if bookmark is not None:
            pages.bookmark(bookmark)
        self._draw_lines(lines, pages.left, size, 1.3, ACCENT if level == 1 else INK)
        pages.y += _GAP * (0.9 if level == 1 else 0.5)

    def _draw_blocks(self, blocks: Sequence[Block], x: float, width: float, depth: int) -> None:
        for block in blocks:
            self._draw_block(block, x, width, depth)

    def _draw_block(self, block: Block, x: float, width: float, depth: int) -> None:
        pages = self._pages
        match block:
            case Heading(level, text):
                self._draw_heading(level, text)
            case Paragraph(text):
                self._draw_lines(pages.breaker.lines(text, _BODY, width), x, _BODY, _LEADING, together=2)
                pages.y += _GAP
            case Code(text):
                self._draw_code(text, x, width)
            case Quote(inner):
                self._draw_quote(inner, x, width, depth)
            case Items():
                self._draw_items(block, x, width, depth)
            case Table():
                draw_table(pages, block, x, width)
                pages.y += _GAP * 1.4
            case Rule():
                pages.need(2 * _GAP)
                pages.box(x, pages.y + _GAP / 2, width, 0.25, FAINT)
                pages.y += _GAP * 1.6

    def _draw_lines(
        self,
        lines: Sequence[Line],
        x: float,
        size: float,
        leading: float,
        colour: Colour = INK,
        together: int = 1,
    ) -> None:
        """Draw lines; the first ``together`` and the last as many are not parted by a page's end."""
        pages, height = self._pages, size * leading
        for number, line in enumerate(lines):
            left = len(lines) - number
            if number == 0 or left == together:
                pages.need(min(together, left) * height)
            pages.need(height)
            pages.write(line, x, pages.y + height / 2 + size * CENTRE, colour)
            pages.y += height

    def _draw_code(self, text: str, x: float, width: float) -> None:
        pages, height = self._pages, _BODY * CODE_SCALE * 1.35
        lines = pages.breaker.verbatim_lines(text, _BODY, width - 2 * _CODE_PAD)
        pages.need(min(len(lines), 3) * height + 2 * _CODE_PAD)
        pages.box(x, pages.y, width, _CODE_PAD, PALE)
        pages.y += _CODE_PAD
        for line in lines:
            pages.need(height + _CODE_PAD)
            # A little overlap, or some viewers show hair lines between the boxes.
            pages.box(x, pages.y - 0.05, width, height + 0.1, PALE)
            pages.write(line, x + _CODE_PAD, pages.y + height / 2 + _BODY * CODE_SCALE * CENTRE)
            pages.y += height
        pages.box(x, pages.y, width, _CODE_PAD, PALE)
        pages.y += _CODE_PAD + _GAP * 1.2

    def _draw_quote(self, blocks: Sequence[Block], x: float, width: float, depth: int) -> None:
        pages = self._pages
        pages.need(2 * _BODY * _LEADING)
        indent = _QUOTE_INDENT if depth < _DEEPEST else 0.0
        with pages.barred(x + 0.6, tail=_GAP):
            self._draw_blocks(blocks, x + indent, width - indent, depth + 1)

    def _draw_items(self, block: Items, x: float, width: float, depth: int) -> None:
        pages = self._pages
        indent = _INDENT if depth < _DEEPEST else 0.0
        for number, item in enumerate(block.items):
            # Room for the first lines, or the mark would stay behind on the page before.
            pages.need((2 if item and isinstance(item[0], Paragraph) else 4) * _BODY * _LEADING)
            mark = (
                _BULLETS[min(depth, len(_BULLETS) - 1)] if block.start is None else f"{block.start + number}."
            )
            [line] = pages.breaker.lines((Span(mark),), _BODY, width)
            baseline = pages.y + _BODY * _LEADING / 2 + _BODY * CENTRE
            pages.write(line, x + max(indent - line.width - 1.8, 0.0), baseline, MUTED)
            if not item:
                pages.y += _BODY * _LEADING
            for place, inner in enumerate(item):
                self._draw_block(inner, x + indent, width - indent, depth + 1)
                # Text sits close to the list below it, and to the next item.
                if isinstance(inner, Paragraph) and isinstance(
                    item[place + 1] if place + 1 < len(item) else block, Items
                ):
                    pages.y -= _GAP * 0.6
        if depth == 0:
            pages.y += _GAP * 0.6
