"""How many more jobs may run, in all and of each queue, and which queue is asked first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..queue.queues import QueuePolicy, order_queues, policy_of
from ..store import Claim

__all__ = ["TURN_EVERY", "Reservation", "Slots", "Turns"]

TURN_EVERY = 8
"""Each so many looks the queues that were passed over go first."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Slots that are held while a look is on its way: ``room`` in all, and in ``wants`` the most of each queue."""

    room: int
    wants: Sequence[tuple[str, int]]


class Slots:
    """The free slots of a worker. Shared by the lanes of all shards; used on one loop.

    Args:
        size: how many jobs may run at once.
        most_of: by queue, how many of its jobs; a queue that is not there has no bound of its own.
    """

    def __init__(self, size: int, most_of: Mapping[str, int] | None = None) -> None:
        self.size = size
        self.free = size
        # A bound that the whole one covers costs nothing on the way.
        self._most_of = {queue: most for queue, most in (most_of or {}).items() if most < size}
        self._free_of = dict(self._most_of)
        self._running_of = dict.fromkeys(self._most_of, 0)
        self._listeners: deque[Callable[[str | None], None]] = deque()

    def listen(self, on_free: Callable[[str | None], None]) -> None:
        """Call ``on_free`` whenever a slot is free again, with the queue whose job has ended, or None."""
        self._listeners.append(on_free)

    def is_open(self, queue: str) -> bool:
        """Whether a job of the queue may start."""
        return self.free > 0 and self._free_of.get(queue, 1) > 0

    def full_queues(self) -> frozenset[str]:
        """The queues of which as many jobs run as may. What is only reserved will be told within a call of the store."""
        most_of = self._most_of
        return frozenset(queue for queue, running in self._running_of.items() if running >= most_of[queue])

    def reserve(self, most: int, order: Iterable[str], singles: int = 0) -> Reservation:
        """Take what is free, up to ``most``, for the queues in this order; of the first ``singles`` one job each.

        A queue that is full is among the wants too, with 0: to name it gives back its wake token.
        """
        room = min(most, self.free)
        self.free -= room
        wants = []
        for place, queue in enumerate(order):
            wanted = min(1, room) if place < singles else room
            free = self._free_of.get(queue)
            if free is not None:
                wanted = min(wanted, free)
                self._free_of[queue] = free - wanted
            wants.append((queue, wanted))
        return Reservation(room, wants)

    def settle(self, held: Reservation, claims: Sequence[Claim]) -> bool:
        """Give back what the claims leave of a reservation; say whether another look may find more."""
        found: dict[str, int] = {}
        for claim in claims:
            found[claim.queue] = found.get(claim.queue, 0) + 1
        was_full, unused = self.free <= 0, held.room - len(claims)
        self.free += unused
        is_more = not unused
        for queue, wanted in held.wants:
            started = found.get(queue, 0)
            if queue in self._free_of:
                self._free_of[queue] += wanted - started
                self._running_of[queue] += started
            # All that was asked for is there: of a queue that may start more, there may be more.
            is_more = is_more or (0 < started == wanted < held.room and self.is_open(queue))
        if was_full and unused:
            self._tell(None)
        return is_more and self.free > 0

    def give_back(self, queue: str) -> None:
        """Free the slot of a job of this queue."""
        self.free += 1
        if queue in self._free_of:
            self._free_of[queue] += 1
            self._running_of[queue] -= 1
        self._tell(queue)

    def _tell(self, queue: str | None) -> None:
        # Who is told first takes the slot: the shards take turns.
        self._listeners.rotate(-1)
        for on_free in self._listeners:
            on_free(queue)


class Turns:
    """The order in which one lane asks its queues: by priority, without starving the low ones.

    Queues of one priority take turns in being first among themselves. Every ``TURN_EVERY`` looks, those that gave nothing
    in the looks since go before all others, for one job each, the one that has waited longest first. So of k queues with
    waiting jobs each one starts a job at least every ``TURN_EVERY`` × k looks that have a free slot for it, whatever its
    priority and however much waits in the others.
    """

    def __init__(self, queues: Iterable[str], policies: Mapping[str, QueuePolicy]) -> None:
        ordered = order_queues(queues, policies)
        self._groups = [
            deque(group) for _, group in groupby(ordered, lambda queue: policy_of(policies, queue).priority)
        ]
        self._look = 0
        self._served = dict.fromkeys(ordered, 0)

    @property
    def plain(self) -> list[str]:
        """The queues by priority, without counting a look."""
        return [queue for group in self._groups for queue in group]

    def next(self) -> tuple[list[str], int]:
        """Count a look; return the order of its queues, and of how many at its head one job is wanted."""
        self._look += 1
        order = self.plain
        for group in self._groups:
            group.rotate(-1)
        if self._look % TURN_EVERY or len(order) == 1:
            return order, 0
        since = self._look - TURN_EVERY
        passed_over = [queue for queue in order if self._served[queue] <= since]
        passed_over.sort(key=self._served.__getitem__)
        return passed_over + [queue for queue in order if self._served[queue] > since], len(passed_over)

    def serve(self, claims: Iterable[Claim]) -> None:
        """Note which queues gave something."""
        for claim in claims:
            self._served[claim.queue] = self._look
