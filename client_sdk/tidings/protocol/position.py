"""Positions, ``"<epoch>:<seq>"``: the one value that resumes a stream on any transport and any server."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["BEGINNING", "Position", "accepts"]

_POSITION = re.compile(r"([A-Za-z0-9_-]{1,32}):(0|[1-9][0-9]{0,15})")


class Position(NamedTuple):
    """A place in a log. Clients treat its text as opaque; only servers and stores take it apart."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read a position; ``"0"`` is the beginning of any log.

        Raises:
            ValueError: the text is no position. Whether its epoch is still known only the store can tell.
        """
        if text == "0":
            return BEGINNING
        match = _POSITION.fullmatch(text)
        if match is None:
            raise ValueError("a position looks like 'k3f9:7', or '0' for the beginning")
        return cls(match.group(1), int(match.group(2)))


BEGINNING: Final = Position("", 0)


def accepts(at_seq: int, *, seq: int, prev: int | None) -> bool:
    """Tell whether a receiver that stands at ``at_seq`` may apply an event (contract §3).

    What lies between ``at_seq`` and the event was progress, folded away. When this is false, ``seq <= at_seq``
    means a repeat, to be dropped; anything else is a gap, to be asked for again from ``at_seq``.
    """
    return (seq - 1 if prev is None else prev) <= at_seq < seq
