"""Where in its course a job is to be stopped, as a test says it: after an event of its log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeAlias

__all__ = ["Moment", "Stop", "StopPoint"]

Moment: TypeAlias = "int | str | Callable[[dict[str, Any]], bool]"
"""After so many events that the function sends (0: before it is called), after the first event of a kind, or after
the first event of which this is true."""

_SENT = frozenset({"progress", "log", "output"})


class Stop(StrEnum):
    """What happens to a job at a moment."""

    CANCEL = "cancel"
    TIME_OUT = "time_out"
    HAND_BACK = "hand_back"
    LOSE = "lose"
    SHUT_DOWN = "shut_down"


class StopPoint:
    """Waits for one moment of one job, which comes once."""

    def __init__(self, stop: Stop, moment: Moment) -> None:
        self.stop = stop
        self._moment = moment
        self._sent = 0
        self.is_over = False
        """Whether the moment has come."""

    @classmethod
    def read(cls, moments: Mapping[Stop, Moment | None]) -> list[StopPoint]:
        """Make the points of a test's arguments."""
        return [cls(stop, moment) for stop, moment in moments.items() if moment is not None]

    def sees(self, event: dict[str, Any]) -> bool:
        """Tell whether the moment has come with this event."""
        if self.is_over:
            return False
        self._sent += event["kind"] in _SENT
        if isinstance(self._moment, str):
            self.is_over = event["kind"] == self._moment
        elif isinstance(self._moment, int):
            is_counted = event["kind"] in _SENT or event["kind"] == "started"
            self.is_over = is_counted and self._sent == self._moment
        else:
            self.is_over = self._moment(event)
        return self.is_over
