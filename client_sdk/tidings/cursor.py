"""The place of one reader in one job's log: drops repeats, finds gaps, starts anew on a reset. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from .protocol.errors import InternalError
from .protocol.events import Event
from .protocol.models import Job
from .protocol.position import Position, accepts

__all__ = ["Batch", "Cursor", "Gap", "Reset", "Snapshot", "WatchItem"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What arrived together.

    Attributes:
        events: In the log's order. Repeats are possible; the reader's position decides.
        position: Where the log stands behind ``events``; None where the transport does not say.
        answer: Whether this answers a question asked from the reader's position. Then the server has vouched
            that the reader's history leads to these events, even into a new epoch.
        reset: The reader's position is not valid any more: ``job`` and ``events`` take its place.
        job: The snapshot that goes with a reset.
        done: The terminal event is at or before ``position``.
    """

    events: Sequence[Event] = ()
    position: str | None = None
    answer: bool = False
    reset: bool = False
    job: Job | None = None
    done: bool = False


class Snapshot(BaseModel):
    """The whole job as it was at ``position``: what a watch begins with when it is asked for no history."""

    model_config = ConfigDict(frozen=True)

    job: Job
    position: str


class Reset(Snapshot):
    """The history behind this reader is gone or was replaced: begin anew from ``job``; events follow ``position``."""


WatchItem = Event | Snapshot


class Gap(Exception):
    """Something between the reader's position and what arrived is missing: ask again from the position."""


class Cursor:
    """Applies batches to a position.

    Args:
        position: Where the reader stands, ``"0"`` for before event 1.

    Raises:
        ValueError: ``position`` has not the form of one.
    """

    def __init__(self, position: str) -> None:
        self.position = position
        self.finished = False
        self._epoch, self._seq = Position.parse(position)

    def take(self, batch: Batch) -> Iterator[Event | Reset]:
        """Yield what of ``batch`` is new, in order; the position is moved before each is yielded.

        Raises:
            Gap: what comes next is not there. What was yielded before stays applied.
            InternalError: the server sent a position that is none.
        """
        if self.finished:
            return
        if batch.reset:
            yield self._begin_anew(batch)
        for event in batch.events:
            if not self._admits(event, batch):
                continue
            self._move_to(event.epoch, event.seq)
            self.finished = event.is_terminal
            yield event
            if self.finished:
                return
        if batch.position is not None:
            self._settle(batch, _read(batch.position))

    def _begin_anew(self, batch: Batch) -> Reset:
        if batch.job is None or batch.position is None:
            raise InternalError("the server reset a stream without saying to where")
        if batch.events:
            first = batch.events[0]
            self._move_to(first.epoch, first.seq - 1 if first.prev is None else first.prev)
        else:
            self._move_to(*_read(batch.position))
        return Reset(job=batch.job, position=self.position)

    def _admits(self, event: Event, batch: Batch) -> bool:
        if event.epoch != self._epoch and self._epoch:
            # Sequence numbers of two epochs compare only where the server has checked the fork (contract §1).
            if not batch.answer or not accepts(self._seq, seq=event.seq, prev=event.prev):
                raise Gap
            return True
        if accepts(self._seq, seq=event.seq, prev=event.prev):
            return True
        if event.seq <= self._seq:
            return False
        raise Gap

    def _settle(self, batch: Batch, stands: Position) -> None:
        if stands.seq > self._seq:
            raise Gap
        if batch.answer and stands.seq == self._seq:
            self._move_to(*stands)
            self.finished = batch.done or (batch.reset and _ends_at(batch.job, stands))

    def _move_to(self, epoch: str, seq: int) -> None:
        self._epoch, self._seq = epoch, seq
        self.position = str(Position(epoch, seq))


def _read(position: str) -> Position:
    try:
        return Position.parse(position)
    except ValueError as error:
        raise InternalError(f"the server sent {position[:80]!r} as a position") from error


def _ends_at(job: Job | None, stands: Position) -> bool:
    """Tell whether a reset leaves nothing to come: usually a finished job's terminal event still follows."""
    return job is not None and job.status.is_terminal and _read(job.position).seq <= stands.seq
