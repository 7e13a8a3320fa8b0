"""What every format offers: add sections one at a time, then finish with the bytes of a file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from .request import Section

__all__ = ["Document", "Rendered", "dated"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished file. ``pages`` is None where only the reader's program decides it.

    ``undrawable`` holds the characters that the file shows as U+FFFD, for want of a glyph.
    """

    data: bytes
    media_type: str
    pages: int | None = None
    undrawable: frozenset[str] = frozenset()


class Document(Protocol):
    """A report under construction. Both calls are CPU work; one thread at a time."""

    def add(self, section: Section) -> None:
        """Append a section."""
        ...

    def finish(self) -> Rendered:
        """Return the file. Nothing can be added afterwards."""
        ...


def dated(created_at: datetime, sections: int) -> str:
    """Return the line below the title."""
    return f"{created_at.day} {created_at:%B %Y} · {sections} section{'' if sections == 1 else 's'}"
