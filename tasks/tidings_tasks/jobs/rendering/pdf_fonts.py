"""The faces of a PDF: the DejaVu fonts, their widths, and what becomes of characters they lack."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from fpdf import FPDF
from fpdf.fonts import TTFFont

from .blocks import Span
from .text import REPLACEMENT

__all__ = ["Face", "Faces"]

_DIRECTORY = Path(__file__).parent / "fonts"
_FILES = {
    ("sans", ""): "DejaVuSansCondensed.ttf",
    ("sans", "B"): "DejaVuSansCondensed-Bold.ttf",
    ("sans", "I"): "DejaVuSansCondensed-Oblique.ttf",
    ("sans", "BI"): "DejaVuSansCondensed-BoldOblique.ttf",
    ("mono", ""): "DejaVuSansMono.ttf",
}
_TAB = "    "


class Face:
    """One face: which characters it draws, and how wide they are."""

    def __init__(self, family: str, style: str, advances: Mapping[int, float]) -> None:
        """``advances`` holds, for each code point there is a glyph for, its width in thousandths of the size."""
        self.family, self.style = family, style
        self._advances = advances
        self._drawable = _Drawable(advances)

    def drawable(self, text: str) -> str:
        """Return printable ``text`` with U+FFFD in place of each character this face cannot draw."""
        if text.isascii() and "\t" not in text:
            return text
        return unicodedata.normalize("NFC", text).translate(self._drawable)

    def replaced(self) -> set[str]:
        """Return the characters met so far that this face cannot draw."""
        return {chr(code) for code, drawn in self._drawable.items() if drawn == REPLACEMENT}

    def width(self, text: str, size: float) -> float:
        """Return the width of drawable ``text``, in the unit of ``size``. There is no kerning."""
        advances = self._advances
        return sum([advances[ord(letter)] for letter in text]) * size / 1_000


class Faces:
    """The faces of one document, registered with it."""

    def __init__(self, pdf: FPDF) -> None:
        # Embedding tells each step, and the letters used, at level info: fifty lines a report.
        logging.getLogger("fontTools").setLevel(logging.WARNING)
        self._faces: dict[tuple[str, str], Face] = {}
        for (family, style), file_name in _FILES.items():
            pdf.add_font(family, style, _DIRECTORY / file_name)
            font = pdf.fonts[family + style]
            assert isinstance(font, TTFFont)
            advances = {int(code): font.cw[int(code)] for code in font.cmap}
            self._faces[family, style] = Face(family, style, advances)

    def of(self, span: Span) -> Face:
        """Return the face that ``span`` is drawn in. Code has one style only."""
        if span.code:
            return self._faces["mono", ""]
        return self._faces["sans", "B" * span.bold + "I" * span.italic]

    def replaced(self) -> set[str]:
        """Return the characters met so far that had to be replaced."""
        return {letter for face in self._faces.values() for letter in face.replaced()}


class _Drawable(dict[int, str | int]):
    """A table for ``str.translate`` that learns each character when it first meets it."""

    def __init__(self, advances: Mapping[int, float]) -> None:
        super().__init__({ord("\t"): _TAB, ord("\n"): "\n"})
        self._advances = advances

    def __missing__(self, code: int) -> str | int:
        self[code] = found = self._look_up(code)
        return found

    def _look_up(self, code: int) -> str | int:
        letter = chr(code)
        # Joiners, variation selectors, soft hyphens, direction marks: they change their neighbours, no more.
        if unicodedata.category(letter) == "Cf" or 0xFE00 <= code <= 0xFE0F:
            return ""
        # Lines are set from left to right, letters are not joined: these scripts would come out silently wrong.
        if code not in self._advances or unicodedata.bidirectional(letter) in ("R", "AL"):
            return REPLACEMENT
        return code
