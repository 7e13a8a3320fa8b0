"""A text in parts that every format can draw: blocks, and styled spans within them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "Align",
    "Block",
    "Code",
    "Heading",
    "Inline",
    "Items",
    "Paragraph",
    "Quote",
    "Rule",
    "Span",
    "Table",
]

Align = Literal["left", "center", "right"]


@dataclass(frozen=True, slots=True)
class Span:
    """A run of text in one style. ``\\n`` breaks the line; ``link`` is an http, https or mailto address."""

    text: str
    bold: bool = False
    italic: bool = False
    code: bool = False
    strike: bool = False
    link: str | None = None


Inline = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a section; 2 is the highest, since 1 is the section's own."""

    level: int
    text: Inline


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Flowing text."""

    text: Inline


@dataclass(frozen=True, slots=True)
class Code:
    """Lines kept as they are, in a fixed-width face."""

    text: str


@dataclass(frozen=True, slots=True)
class Quote:
    """Blocks said by somebody else."""

    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A list. ``start`` is the first number, or None for bullets."""

    items: tuple[tuple[Block, ...], ...]
    start: int | None


@dataclass(frozen=True, slots=True)
class Table:
    """A table; every row has as many cells as there are columns and alignments."""

    columns: tuple[Inline, ...]
    rows: tuple[tuple[Inline, ...], ...]
    aligns: tuple[Align, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A thematic break."""


Block = Heading | Paragraph | Code | Quote | Items | Table | Rule
