"""The receiver's rule: whatever is repeated, left out or cut, the reader has each event once, in order, or asks again."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidings.cursor import Batch, Cursor, Gap, Reset
from tidings.protocol.errors import InternalError
from tidings.protocol.events import Event
from tidings.protocol.ids import new_job_id
from tidings.protocol.models import Job

JOB = new_job_id(0)
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def event(seq: int, *, prev: int | None = None, epoch: str = "e1", kind: str = "progress") -> Event:
    """Make an event."""
    return Event.model_validate(
        {
            "job_id": JOB,
            "epoch": epoch,
            "seq": seq,
            "prev": prev,
            "kind": kind,
            "at": NOW,
            "attempt": 1,
            "data": {},
        }
    )


def job(status: str, position: str) -> Job:
    """Make a job."""
    return Job.model_validate(
        {"id": JOB, "type": "t", "status": status, "progress": None, "attempt": 1, "position": position,
         "updated_at": NOW, "queue": "q", "priority": 5, "owner": "o", "org": None, "input": {}, "tries": 0,
         "max_attempts": 1, "timeout_s": 1, "tags": [], "metadata": {}, "created_at": NOW}
    )  # fmt: skip


def take(cursor: Cursor, batch: Batch) -> list[int]:
    """Apply a batch and list the numbers of what it brought."""
    return [item.seq for item in cursor.take(batch) if isinstance(item, Event)]


def test_a_repeat_is_dropped_and_a_successor_taken() -> None:
    """By number."""
    cursor = Cursor("e1:3")
    assert take(cursor, Batch([event(2), event(3), event(4), event(4), event(5)])) == [4, 5]
    assert cursor.position == "e1:5"


def test_a_gap_keeps_what_came_before_it() -> None:
    """The position is where to ask again."""
    cursor = Cursor("e1:1")
    items = cursor.take(Batch([event(2), event(4)]))
    assert next(items).position == "e1:2"
    with pytest.raises(Gap):
        next(items)
    assert cursor.position == "e1:2"
    assert take(cursor, Batch([event(3), event(4)])) == [3, 4]


def test_folded_progress_is_skipped_even_from_the_middle_of_it() -> None:
    """`(prev or seq-1) <= p < seq`."""
    assert take(Cursor("e1:5"), Batch([event(9, prev=2)])) == [9]
    with pytest.raises(Gap):
        take(Cursor("e1:1"), Batch([event(9, prev=2)]))


def test_another_epoch_live_is_a_gap_whatever_its_number() -> None:
    """It may look like a repeat or a successor and be neither."""
    for seq in (3, 5, 6, 9):
        with pytest.raises(Gap):
            take(Cursor("e1:5"), Batch([event(seq, epoch="e2")]))


def test_an_answer_leads_into_another_epoch() -> None:
    """The server has checked the fork."""
    cursor = Cursor("e1:5")
    assert take(cursor, Batch([event(6), event(7, epoch="e2")], "e2:7", answer=True)) == [6, 7]
    assert cursor.position == "e2:7"


def test_an_empty_answer_may_rename_the_position_but_not_move_it() -> None:
    """The same place in a newer epoch; further on would be a hole."""
    cursor = Cursor("e1:5")
    assert take(cursor, Batch(position="e2:5", answer=True)) == []
    assert cursor.position == "e2:5"
    with pytest.raises(Gap):
        take(cursor, Batch(position="e2:6", answer=True))
    assert take(cursor, Batch(position="e2:4", answer=True)) == []
    assert cursor.position == "e2:5"


def test_another_watch_s_answer_shows_that_events_are_missing() -> None:
    """Its position is news, its epoch is not."""
    with pytest.raises(Gap):
        take(Cursor("e1:5"), Batch(position="e1:6"))
    cursor = Cursor("e1:5")
    take(cursor, Batch(position="e2:5"))
    assert cursor.position == "e1:5"


def test_the_terminal_event_finishes() -> None:
    """And nothing is taken behind it."""
    cursor = Cursor("0")
    assert take(cursor, Batch([event(1), event(2, kind="completed"), event(3)])) == [1, 2]
    assert cursor.finished
    assert take(cursor, Batch([event(3)])) == []


def test_a_reset_begins_anew_where_its_events_begin() -> None:
    """The position of the reset leads to the events behind it."""
    cursor = Cursor("e1:50")
    reset, last = cursor.take(
        Batch(
            [event(9, prev=7, epoch="e2", kind="failed")],
            "e2:9",
            answer=True,
            reset=True,
            job=job("failed", "e2:9"),
        )
    )
    assert isinstance(reset, Reset)
    assert reset.position == "e2:7"
    assert last.position == "e2:9"
    assert cursor.finished


def test_a_reset_of_a_finished_job_waits_for_the_terminal_event_unless_the_log_ends_there() -> None:
    """A stream brings it as its next message; a page that holds nothing more will never bring it."""
    cursor = Cursor("e1:50")
    list(cursor.take(Batch(position="e2:8", answer=True, reset=True, job=job("completed", "e2:9"))))
    assert not cursor.finished
    cursor = Cursor("e1:50")
    list(cursor.take(Batch(position="e2:9", answer=True, reset=True, job=job("completed", "e2:9"))))
    assert cursor.finished


def test_done_finishes_only_when_everything_has_arrived() -> None:
    """A page that says done and leaves a hole is a gap."""
    cursor = Cursor("e1:5")
    take(cursor, Batch(position="e1:5", answer=True, done=True))
    assert cursor.finished
    cursor = Cursor("e1:5")
    with pytest.raises(Gap):
        take(cursor, Batch(position="e1:7", answer=True, done=True))
    assert not cursor.finished


def test_what_is_no_position_is_refused() -> None:
    """The caller's with ValueError, the server's with InternalError."""
    with pytest.raises(ValueError, match="position"):
        Cursor("x")
    with pytest.raises(InternalError):
        take(Cursor("0"), Batch(position="x", answer=True))
    with pytest.raises(InternalError):
        list(Cursor("0").take(Batch(reset=True, answer=True)))


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """Draw a log of two epochs, with folded progress, ending in a terminal event."""
    seq, events = 0, []
    fork = draw(st.integers(1, 25))
    for _ in range(draw(st.integers(1, 20))):
        folded = draw(st.sampled_from([0, 0, 0, 1, 4]))
        prev = seq if folded else None
        seq += 1 + folded
        events.append(event(seq, prev=prev, epoch="e1" if len(events) < fork else "e2"))
    return [*events, event(seq + 1, kind="completed", epoch=events[-1].epoch)]


@settings(deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_any_mutilated_stream_with_repairs_brings_each_event_once(
    log: list[Event], rng: random.Random
) -> None:
    """Drops, repeats and swaps on the stream; after each gap an honest answer from the cursor's position."""
    cursor, seen = Cursor("0"), []
    stream = [entry for entry in log for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    for _ in range(rng.randrange(4)):
        if len(stream) > 1:
            at = rng.randrange(len(stream) - 1)
            stream[at], stream[at + 1] = stream[at + 1], stream[at]
    batches = []
    while stream:
        size = rng.randint(1, 4)
        batches.append(Batch(stream[:size]))
        del stream[:size]
    batches.append(None)
    for batch in batches:
        try:
            if batch is None:
                raise Gap
            seen.extend(cursor.take(batch))
        except Gap:
            at = int(cursor.position.rpartition(":")[2])
            later = [entry for entry in log if entry.seq > at][: rng.randint(1, 30) if batch else None]
            stands = later[-1].position if later else cursor.position
            seen.extend(cursor.take(Batch(later, stands, answer=True)))
    assert [item.seq for item in seen] == [entry.seq for entry in log]
    assert cursor.finished
