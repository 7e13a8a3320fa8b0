"""Slots and turns: what may run at once, and which queue is asked first."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings_tasks.queue.queues import BUILT_IN_POLICIES
from tidings_tasks.store import Claim, Spec
from tidings_tasks.worker.slots import TURN_EVERY, Slots, Turns

QUEUES = list(BUILT_IN_POLICIES)


def claim(queue: str) -> Claim:
    return Claim("id", 1, queue, 0, Spec("x", "alice", None, {}, 1, 1, (1,)))


def take(turns: Turns, waiting: Counter[str], room: int = 1) -> list[str]:
    """Make one look at these jobs, as the store answers it."""
    order, singles = turns.next()
    claims = []
    for place, queue in enumerate(order):
        wanted = min(room, 1) if place < singles else room
        for _ in range(min(wanted, waiting[queue])):
            waiting[queue] -= 1
            room -= 1
            claims.append(claim(queue))
    turns.serve(claims)
    return [found.queue for found in claims]


def test_a_queue_has_its_own_bound_within_the_whole() -> None:
    """What is reserved for one look is not there for another; what it did not use comes back."""
    slots = Slots(10, {"ai": 2, "default": 10})
    first = slots.reserve(100, ["ai", "default"])
    assert (first.room, first.wants) == (10, [("ai", 2), ("default", 10)])
    assert slots.reserve(100, ["ai"]).wants == [("ai", 0)]
    assert slots.settle(first, [claim("ai")] * 2 + [claim("default")]) is False
    assert (slots.free, slots.full_queues()) == (7, {"ai"})
    assert not slots.is_open("ai")
    assert slots.is_open("default")
    slots.give_back("ai")
    assert slots.is_open("ai")
    assert slots.reserve(100, ["ai", "default"]).wants == [("ai", 1), ("default", 8)]


def test_a_look_that_got_all_it_asked_for_is_followed_by_another() -> None:
    """As long as there is a slot for what it may find."""
    slots = Slots(10, {"ai": 5})
    assert slots.settle(slots.reserve(4, ["ai", "default"]), [claim("ai")] * 4) is True
    assert slots.settle(slots.reserve(4, ["ai", "default"]), [claim("ai")]) is False  # ai is full now
    assert slots.settle(slots.reserve(4, ["default"], 1), [claim("default")]) is True
    assert slots.settle(slots.reserve(4, ["default"]), [claim("default")] * 4) is False  # no slot is left
    assert slots.free == 0


def test_what_is_only_reserved_is_not_full() -> None:
    """A queue is not left out while a look is on its way, and two looks at once do not call for a third."""
    slots = Slots(10, {"ai": 5})
    first, second = slots.reserve(5, ["ai", "default"]), slots.reserve(5, ["ai", "default"])
    assert second.wants == [("ai", 0), ("default", 5)]
    assert slots.full_queues() == frozenset()
    assert (slots.settle(first, []), slots.settle(second, [])) == (False, False)
    assert slots.reserve(5, ["ai"]).wants == [("ai", 5)]


def test_who_waits_is_told_what_is_free() -> None:
    """The lanes take turns in being told first; a reservation that is given back counts too."""
    slots = Slots(2, {"ai": 1})
    told: list[tuple[str, str | None]] = []
    slots.listen(lambda queue: told.append(("a", queue)))
    slots.listen(lambda queue: told.append(("b", queue)))
    held = slots.reserve(2, ["ai", "default"])
    slots.settle(held, [claim("default")])
    assert told == [("b", None), ("a", None)]
    told.clear()
    slots.give_back("default")
    assert told == [("a", "default"), ("b", "default")]


@given(
    st.lists(
        st.tuples(st.sampled_from(["ai", "default", "own"]), st.integers(1, 9), st.integers(0, 9)),
        max_size=40,
    )
)
def test_slots_are_neither_lost_nor_made(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is reserved, claimed and ended in any order, all is free when nothing runs."""
    slots = Slots(6, {"ai": 2, "own": 5})
    running: Counter[str] = Counter()
    for queue, most, ends in steps:
        held = slots.reserve(most, [queue, "default"] if queue != "default" else [queue])
        wanted = dict(held.wants)[queue]
        slots.settle(held, [claim(queue)] * wanted)
        running[queue] += wanted
        assert running["ai"] <= 2
        assert running.total() <= 6
        for name in list(running.elements())[:ends]:
            slots.give_back(name)
            running[name] -= 1
    for name in running.elements():
        slots.give_back(name)
    assert (slots.free, slots.full_queues()) == (6, frozenset())
    assert slots.reserve(9, ["ai", "own"]).wants == [("ai", 2), ("own", 5)]


def test_queues_are_asked_by_priority_and_equals_take_turns() -> None:
    """Two looks after another differ only among queues of one priority."""
    turns = Turns(["critical", "ai", "documents", "scheduled"], BUILT_IN_POLICIES)
    assert turns.next() == (["critical", "ai", "documents", "scheduled"], 0)
    assert turns.next() == (["critical", "documents", "ai", "scheduled"], 0)


@pytest.mark.parametrize("low", [["scheduled"], ["scheduled", "maintenance", "default"], QUEUES[1:]])
def test_no_queue_is_starved(low: list[str]) -> None:
    """With one slot and a top queue that never ends, each of k queues starts a job in every ``TURN_EVERY`` × k looks."""
    turns, waiting = Turns(QUEUES, BUILT_IN_POLICIES), Counter({"critical": 10**6})
    waiting.update(dict.fromkeys(low, 10**6))
    bound = TURN_EVERY * (len(low) + 1)
    started = [take(turns, waiting)[0] for _ in range(bound * 4)]
    for first in range(len(started) - bound):
        assert set(started[first : first + bound]) == {"critical", *low}
    assert started.count("critical") >= len(started) * (TURN_EVERY - 1) // TURN_EVERY


def test_a_turn_takes_one_job_of_each_queue_that_was_passed_over() -> None:
    """The queue that is served all the time keeps the rest of the room, so a turn costs it little."""
    turns = Turns(QUEUES, BUILT_IN_POLICIES)
    waiting = Counter({"critical": 10**6, "scheduled": 50, "default": 50})
    for _ in range(TURN_EVERY - 1):
        assert set(take(turns, waiting, room=20)) == {"critical"}
    assert Counter(take(turns, waiting, room=20)) == {"critical": 18, "scheduled": 1, "default": 1}
