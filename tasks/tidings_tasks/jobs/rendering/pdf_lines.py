"""Breaking styled text into lines of a given width: greedy, at spaces and after hyphens, else between letters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .blocks import Inline, Span
from .pdf_fonts import Face, Faces

__all__ = ["CODE_SCALE", "Line", "LineBreaker", "Piece"]

# The fixed-width face looks larger than the text around it.
CODE_SCALE = 0.9
# A hyphen or slash between letters may end a line; one between digits, as in a date, may not.
_PARTS = re.compile(r"\n| +|[^ \n]+?(?:(?<=[^\W\d_])[-–—/](?=[^\W\d_])|(?=[ \n]|$))")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text in one face and size; ``width`` is in the unit of ``size``."""

    text: str
    span: Span
    face: Face
    size: float
    width: float


@dataclass(slots=True)
class Line:
    """What stands side by side on one line."""

    pieces: list[Piece] = field(default_factory=list)
    width: float = 0.0

    def add(self, piece: Piece) -> None:
        """Put ``piece`` at the end, joined with the last one where both are of one style."""
        self.width += piece.width
        last = self.pieces[-1] if self.pieces else None
        if last is not None and last.span is piece.span:
            self.pieces[-1] = replace(last, text=last.text + piece.text, width=last.width + piece.width)
        else:
            self.pieces.append(piece)


class LineBreaker:
    """Breaks the text of one document."""

    def __init__(self, faces: Faces) -> None:
        self._faces = faces

    def natural_width(self, text: Inline, size: float) -> float:
        """Return the width of the widest line of ``text`` when it is broken only where it says so."""
        return max((line.width for line in self.lines(text, size, float("inf"))), default=0.0)

    def longest_word(self, text: Inline, size: float) -> float:
        """Return the width of the widest part that is not broken if there is room for it."""
        return max((sum(piece.width for piece in word) for word in self._words(text, size)), default=0.0)

    def lines(self, text: Inline, size: float, width: float) -> list[Line]:
        """Break ``text`` into lines no wider than ``width``; a single letter wider than that stands alone."""
        if len(text) == 1 and (whole := self._piece(text[0].text, text[0], size)) and "\n" not in whole.text:
            whole = replace(whole, width=whole.face.width(whole.text, whole.size))
            if whole.width <= width:  # most cells of most tables
                return [Line([whole], whole.width)]
        lines = [Line()]
        space: Piece | None = None
        for word in self._words(text, size):
            first = word[0]
            if first.text == "\n":
                lines.append(Line())
                space = None
            elif first.text.startswith(" "):
                space = first if lines[-1].pieces else None
            else:
                self._place(lines, space, word, width)
                space = None
        return lines

    def verbatim_lines(self, text: str, size: float, width: float) -> list[Line]:
        """Break code: its own line ends and spaces stay, what is too wide goes on in the next line."""
        style = Span("", code=True)
        lines: list[Line] = []
        for source in text.split("\n"):
            lines.append(Line())
            if piece := self._piece(source, style, size):
                self._break(lines, piece, width)
        return lines

    def _place(self, lines: list[Line], space: Piece | None, word: list[Piece], width: float) -> None:
        line = lines[-1]
        gap = space.width if space else 0.0
        word_width = sum(piece.width for piece in word)
        if line.width + gap + word_width > width and line.pieces:
            lines.append(Line())
        elif space is not None:
            line.add(space)
        for piece in word:
            if lines[-1].width + piece.width <= width:
                lines[-1].add(piece)
            else:
                self._break(lines, piece, width)

    def _break(self, lines: list[Line], piece: Piece, width: float) -> None:
        """Add ``piece`` letter by letter, beginning a new line whenever one is full."""
        start, reach = 0, lines[-1].width
        for end, letter in enumerate(piece.text):
            advance = piece.face.width(letter, piece.size)
            if reach + advance > width and (end > start or lines[-1].pieces):
                self._add_slice(lines[-1], piece, start, end)
                lines.append(Line())
                start, reach = end, 0.0
            reach += advance
        self._add_slice(lines[-1], piece, start, len(piece.text))

    def _add_slice(self, line: Line, piece: Piece, start: int, end: int) -> None:
        if text := piece.text[start:end]:
            line.add(replace(piece, text=text, width=piece.face.width(text, piece.size)))

    def _words(self, text: Inline, size: float) -> Iterator[list[Piece]]:
        """Yield line ends, runs of spaces, and words; a word may change its style midway."""
        word: list[Piece] = []
        for span in text:
            whole = self._piece(span.text, span, size)
            if whole is None:
                continue
            for part in _PARTS.findall(whole.text):
                if part[0] in " \n":
                    if word:
                        yield word
                    word = []
                piece = replace(
                    whole, text=part, width=0.0 if part == "\n" else whole.face.width(part, whole.size)
                )
                if part[0] in " \n":
                    yield [piece]
                else:
                    word.append(piece)
                    if part[-1] in "-–—/":
                        yield word
                        word = []
        if word:
            yield word

    def _piece(self, text: str, span: Span, size: float) -> Piece | None:
        face = self._faces.of(span)
        drawn = face.drawable(text)
        if not drawn:
            return None
        size = size * CODE_SCALE if span.code else size
        return Piece(drawn, span, face, size, 0.0)
