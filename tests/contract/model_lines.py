"""The model's fair lines: the n-th waiting job of an owner has turn n, counted from where the line is."""

from __future__ import annotations

import math

from tidings.protocol import JobState

from .model_job import ModelJob, World

__all__ = ["Lines"]

FIRST_TURN = 2**40
A_PRIORITY = 2**48


class Lines:
    """The turns of all lines."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._turns: dict[tuple[str, int, str], float] = {}
        self._fronts: dict[tuple[str, int], float] = {}

    def begin_command(self) -> None:
        """All through a command a line is at the turn that it was at when it was first looked at."""
        self._fronts.clear()

    def place(self, job: ModelJob, *, is_first: bool) -> float:
        """Return the place at the end of the owner's line, or before all."""
        turn = self._front(job.queue, job.priority) - 1
        if not is_first:
            place = (job.queue, job.priority, job.scope)
            waits = any(other.scope == job.scope for other in self._world.in_order(JobState.QUEUED))
            turn = max(turn, self._turns.get(place, turn) if waits else turn) + 1
            self._turns[place] = turn
        return job.priority * A_PRIORITY + turn

    def leave(self, job: ModelJob) -> None:
        """A job that leaves unclaimed from the end of its owner's line gives its turn back."""
        place = (job.queue, job.priority, job.scope)
        if not job.gate and self._turns.get(place) == job.score - job.priority * A_PRIORITY:
            self._turns[place] -= 1

    def forget(self, queue: str, last_place: float) -> None:
        """Turns that a line is past say nothing any more, and none does where nobody waits."""
        past = last_place if self._world.queued(queue) else math.inf
        self._turns = {
            place: turn
            for place, turn in self._turns.items()
            if place[0] != queue or place[1] * A_PRIORITY + turn >= past
        }

    def last_turns(self) -> dict[tuple[str, str], float]:
        """Return the places of the owners' last jobs by queue, and priority and owner."""
        return {(q, f"{p}/{scope}"): p * A_PRIORITY + turn for (q, p, scope), turn in self._turns.items()}

    def _has_parked(self, queue: str) -> bool:
        return len(self._world.queued(queue)) > len(self._world.line(queue))

    def _front(self, queue: str, priority: int) -> float:
        line = (queue, priority)
        if line not in self._fronts:
            standing = [
                job.score - priority * A_PRIORITY
                for job in self._world.line(queue)
                if job.priority == priority
            ]
            if not standing and not self._has_parked(queue):
                self._turns = {place: turn for place, turn in self._turns.items() if place[:2] != line}
            self._fronts[line] = min(standing, default=FIRST_TURN)
        return self._fronts[line]
