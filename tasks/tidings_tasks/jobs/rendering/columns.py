"""Sharing a table's width among its columns by what is in them, in any unit."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["cap_words", "share_width"]

# A table that needs less than this part of the width is not stretched over all of it.
_STRETCH_FROM = 0.5
_WIDEST_WORD = 0.4


def cap_words(words: Sequence[float], width: float) -> list[float]:
    """Limit each column's longest word: an endless one is broken rather than starve the other columns."""
    return [min(word, width * _WIDEST_WORD) for word in words]


def share_width(natural: Sequence[float], least: Sequence[float], width: float) -> tuple[float, ...]:
    """Return the columns' widths, which come to at most ``width``.

    Where the ``natural`` widths fit, all are stretched alike. Otherwise each column gets its ``least``, and what
    is left goes to those that want more; where even that does not fit, all are narrowed alike.
    """
    total = sum(natural)
    if total <= width:
        target = width if total >= width * _STRETCH_FROM else width * _STRETCH_FROM
        return tuple(each * target / total for each in natural)
    spare = width - sum(least)
    if spare < 0:
        return tuple(each * width / sum(least) for each in least)
    wants = [max(wish - floor, 0.0) for wish, floor in zip(natural, least, strict=True)]
    share = spare / (sum(wants) or 1.0)
    return tuple(floor + want * share for floor, want in zip(least, wants, strict=True))
