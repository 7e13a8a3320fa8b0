"""The event envelope: one numbered entry of a job's log, the same JSON on every transport (contract §3)."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from .position import Position
from .states import EventKind

__all__ = ["ENVELOPE_HEAD", "Event", "EventHead", "read_head"]


class Event(BaseModel):
    """One event of one job.

    ``prev`` stands where progress events before this one were folded away: the event follows directly on seq
    ``prev``. ``data`` has the fields of contract §3's table for ``kind``. What a newer release adds is
    no error: unknown fields are kept out, unknown kinds are kept as they are.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    epoch: str
    seq: int = Field(ge=1)
    prev: int | None = Field(default=None, ge=0)
    kind: EventKind
    at: AwareDatetime
    attempt: int = Field(ge=0)
    data: dict[str, Any]

    @property
    def position(self) -> str:
        """The position of a receiver that has applied this event."""
        return str(Position(self.epoch, self.seq))

    @property
    def is_terminal(self) -> bool:
        """Whether this is the last event of the job."""
        return self.kind.is_terminal


ENVELOPE_HEAD: Final = re.compile(
    rb'\{"job_id":"([0-9A-Zs]+)","epoch":"([A-Za-z0-9_-]+)","seq":(\d+),(?:"prev":(\d+),)?"kind":"([a-z_]+)"'
)
"""The fixed beginning of every stored and published envelope: what a relay may read without decoding JSON."""


class EventHead:
    """What a relay knows of an undecoded event: its place and kind, and the JSON text itself."""

    __slots__ = ("epoch", "job_id", "kind", "prev", "seq", "text")

    def __init__(self, text: bytes, job_id: str, epoch: str, seq: int, prev: int | None, kind: str) -> None:
        self.text = text
        self.job_id = job_id
        self.epoch = epoch
        self.seq = seq
        self.prev = prev
        self.kind = kind

    @property
    def position(self) -> str:
        """The position of a receiver that has applied this event."""
        return f"{self.epoch}:{self.seq}"

    @property
    def is_terminal(self) -> bool:
        """Whether this is the last event of the job."""
        return self.kind in _TERMINAL


_TERMINAL = frozenset({"completed", "failed", "cancelled"})


def read_head(text: bytes) -> EventHead:
    """Read the fixed beginning of an envelope.

    Raises:
        ValueError: the text does not begin as every envelope does; it was not written by the store's scripts.
    """
    match = ENVELOPE_HEAD.match(text)
    if match is None:
        raise ValueError(f"not an event envelope: {text[:80]!r}")
    job_id, epoch, seq, prev, kind = match.groups()
    return EventHead(
        text, job_id.decode(), epoch.decode(), int(seq), None if prev is None else int(prev), kind.decode()
    )
