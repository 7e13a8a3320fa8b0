"""The pages of a PDF: margins, the place where writing goes on, the footer, and drawing in millimetres."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from fpdf import FPDF

from .blocks import Span
from .pdf_fonts import Faces
from .pdf_lines import Line, LineBreaker, Piece

__all__ = ["ACCENT", "CENTRE", "FAINT", "INK", "MUTED", "PALE", "POINT", "Colour", "Pages"]

Colour = tuple[int, int, int]
INK: Colour = (31, 41, 51)
MUTED: Colour = (104, 117, 132)
ACCENT: Colour = (22, 84, 140)
PALE: Colour = (241, 244, 248)
FAINT: Colour = (214, 221, 229)

POINT = 25.4 / 72
# From the middle of a line to its baseline, in parts of the type size: half the height of a capital.
CENTRE = 0.365
_SIDE = 20.0
_TOP = 20.0
_BOTTOM = 22.0
_FOOTER_SIZE = 7.5 * POINT
_FOOTER_UP = 12.0
_CODE_PAD = 0.6
_BAR_WIDTH = 0.8


class Pages:
    """A4 pages under construction. All lengths, type sizes too, are millimetres; y grows downwards.

    ``y`` is where the next thing goes. Not safe for several threads at once.
    """

    def __init__(self, title: str, created_at: datetime) -> None:
        self._pdf = _FooterPdf(self)
        self._faces = Faces(self._pdf)
        self.breaker = LineBreaker(self._faces)
        self._title = title
        self._pdf.set_auto_page_break(False)
        self._pdf.set_title(title)
        self._pdf.set_creator("Tidings")
        self._pdf.set_creation_date(created_at)
        self.left, self.top = _SIDE, _TOP
        self.width = self._pdf.w - 2 * _SIDE
        self.bottom = self._pdf.h - _BOTTOM
        self.y = _TOP
        self._bars: list[_Bar] = []
        self.add_page()

    @property
    def room(self) -> float:
        """The height that is left on this page."""
        return self.bottom - self.y

    @property
    def full_room(self) -> float:
        """The height of an empty page."""
        return self.bottom - self.top

    @property
    def count(self) -> int:
        """How many pages there are so far."""
        return self._pdf.pages_count

    def add_page(self) -> None:
        """Go on at the top of a new page."""
        for bar in self._bars:
            self._draw_bar(bar, self.y)
            bar.top = self.top
        self._pdf.add_page()
        self.y = self.top

    def need(self, height: float) -> None:
        """Go on at a new page unless ``height`` is left on this one; more than a page is treated as a page."""
        if self.room < min(height, self.full_room):
            self.add_page()

    def bookmark(self, name: str) -> None:
        """Let the outline lead to the current place."""
        self._pdf.set_y(self.y)
        self._pdf.start_section(name)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self._pdf.set_fill_color(*colour)
        self._pdf.rect(x, y, width, height, style="F")

    @contextmanager
    def barred(self, x: float, tail: float) -> Iterator[None]:
        """Draw a bar at ``x`` beside all that is drawn meanwhile, up to ``tail`` above its end."""
        bar = _Bar(x, self.y)
        self._bars.append(bar)
        yield
        self._bars.remove(bar)
        self._draw_bar(bar, self.y - tail)

    def write(self, line: Line, x: float, baseline: float, colour: Colour = INK) -> None:
        """Draw one line of text."""
        for piece in line.pieces:
            self._write_piece(piece, x, baseline, colour)
            x += piece.width

    def replaced(self) -> set[str]:
        """Return the characters that had no glyph."""
        return self._faces.replaced()

    def finish(self) -> bytes:
        """Return the file. Nothing may be drawn afterwards."""
        return bytes(self._pdf.output())

    def write_footer(self) -> None:
        """Draw the footer of the page that is being left: its number, and the title cut to fit."""
        baseline = self._pdf.h - _FOOTER_UP
        self.box(self.left, baseline - 4.2, self.width, 0.2, FAINT)
        self._pdf.set_font("sans", "", _FOOTER_SIZE / POINT)
        self._pdf.set_text_color(*MUTED)
        self._pdf.set_xy(self.left - self._pdf.c_margin, baseline - _FOOTER_SIZE)
        self._pdf.cell(40, _FOOTER_SIZE * 1.3, f"Page {self._pdf.page_no()} of {{nb}}")
        [title, *more] = self.breaker.lines((Span(self._title),), _FOOTER_SIZE, self.width - 45)
        if more:
            [title, *_] = self.breaker.lines((Span(self._title),), _FOOTER_SIZE, self.width - 50)
            [dots] = self.breaker.lines((Span("…"),), _FOOTER_SIZE, 10)
            for piece in dots.pieces:
                title.add(piece)
        self.write(title, self.left + self.width - title.width, baseline, MUTED)

    def _draw_bar(self, bar: _Bar, end: float) -> None:
        if end > bar.top:
            self.box(bar.x, bar.top, _BAR_WIDTH, end - bar.top, FAINT)

    def _write_piece(self, piece: Piece, x: float, baseline: float, colour: Colour) -> None:
        span = piece.span
        if span.code and span.text:
            self.box(
                x - _CODE_PAD / 2,
                baseline - piece.size * 0.92,
                piece.width + _CODE_PAD,
                piece.size * 1.22,
                PALE,
            )
        colour = ACCENT if span.link else colour
        self._pdf.set_font(piece.face.family, piece.face.style, piece.size / POINT)
        self._pdf.set_text_color(*colour)
        self._pdf.text(x, baseline, piece.text)
        if span.link:
            self.box(x, baseline + piece.size * 0.12, piece.width, 0.15, ACCENT)
            self._pdf.link(x, baseline - piece.size, piece.width, piece.size * 1.25, span.link)
        if span.strike:
            self.box(x, baseline - piece.size * 0.3, piece.width, 0.2, colour)


@dataclass(slots=True, eq=False)
class _Bar:
    """A bar that is still growing on the current page."""

    x: float
    top: float


class _FooterPdf(FPDF):
    """Calls back for the footer, the hook that the library offers to subclasses only."""

    def __init__(self, pages: Pages) -> None:
        super().__init__(format="A4", unit="mm")
        self._pages = pages

    def footer(self) -> None:
        self._pages.write_footer()
