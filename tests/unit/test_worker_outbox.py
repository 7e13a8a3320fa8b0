"""The outbox: order, numbers, bounds, and who is told when."""

from __future__ import annotations

import threading

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.timing import scaled
from tidings.protocol import new_job_id
from tidings_tasks.attempt import Attempt, StopReason
from tidings_tasks.context import SyncJobContext
from tidings_tasks.outbox import Bounds, Outbox
from tidings_tasks.outcomes import JobCancelled, JobLost
from tidings_tasks.store import Claim, Spec, Verb, WriteCode

BOUNDS = Bounds(
    job_writes=3, job_bytes=1000, total_writes=5, total_bytes=10_000, batch_writes=2, batch_bytes=100
)


def make_outbox(bounds: Bounds = BOUNDS) -> Outbox:
    return Outbox(lambda: None, bounds, max_event_bytes=1024)


def make_attempt(outbox: Outbox) -> Attempt:
    spec = Spec("x", "alice", None, {}, 10, 3, (1,))
    claim = Claim(new_job_id(0), 1, "default", 0, spec)
    return Attempt(claim, outbox, files=None, is_shutting_down=lambda: False)


def settle(outbox: Outbox, code: WriteCode = WriteCode.DONE) -> int:
    batch = outbox.take()
    outbox.settle(batch, [code] * len(batch.writes))
    return len(batch.writes)


def test_writes_are_numbered_per_attempt_in_order() -> None:
    """1, 2, 3 … for each attempt, over all batches, whatever lies between."""
    outbox = make_outbox()
    one, two = make_attempt(outbox), make_attempt(outbox)
    for attempt in (one, two, one):
        outbox.put(attempt, Verb.LOG, b"{}")
    outbox.close(one, Verb.COMPLETE, b"null")
    found: dict[str, list[tuple[int, Verb]]] = {}
    while not outbox.is_empty:
        batch = outbox.take()
        for w in batch.writes:
            found.setdefault(w.id, []).append((w.number, w.verb))
        outbox.settle(batch, [WriteCode.DONE] * len(batch.writes))
    assert found == {
        one.job_id: [(1, Verb.LOG), (2, Verb.LOG), (3, Verb.COMPLETE)],
        two.job_id: [(1, Verb.LOG)],
    }
    assert outbox.waiting == (0, 0)


def test_writes_of_one_attempt_are_in_one_batch_at_a_time() -> None:
    """Of two batches under way either may arrive first, so none has writes that follow on the other's."""
    outbox = make_outbox()
    one, two = make_attempt(outbox), make_attempt(outbox)
    for attempt in (one, one, one, two):
        outbox.put(attempt, Verb.LOG, b"{}")
    first, second, third = outbox.take(), outbox.take(), outbox.take()
    assert [(w.id, w.number) for w in first.writes] == [(one.job_id, 1), (one.job_id, 2)]
    assert [(w.id, w.number) for w in second.writes] == [(two.job_id, 1)]
    assert third.writes == []
    outbox.settle(second, [WriteCode.DONE])
    assert outbox.take().writes == []
    outbox.settle(first, [WriteCode.DONE] * 2)
    assert [(w.id, w.number) for w in outbox.take().writes] == [(one.job_id, 3)]


def test_batch_is_bounded_in_bytes_but_never_empty() -> None:
    """One large write goes alone."""
    outbox = make_outbox()
    attempt = make_attempt(outbox)
    outbox.put(attempt, Verb.OUTPUT, b"x" * 500)
    outbox.put(attempt, Verb.OUTPUT, b"y")
    batch = outbox.take()
    assert [len(w.data) for w in batch.writes] == [500]
    outbox.settle(batch, [WriteCode.DONE])
    assert [len(w.data) for w in outbox.take().writes] == [1]


def test_writer_waits_for_room_of_its_own_job_and_of_all() -> None:
    """A chatty job waits for itself; when all together are too much, everybody does."""
    outbox = make_outbox()
    chatty, quiet = make_attempt(outbox), make_attempt(outbox)
    for _ in range(3):
        outbox.put(chatty, Verb.LOG, b"{}")
    room = outbox.room(chatty)
    assert room is not None
    assert outbox.room(quiet) is None
    outbox.put(quiet, Verb.LOG, b"{}")
    outbox.put(quiet, Verb.LOG, b"{}")
    assert outbox.room(quiet) is not None
    assert not outbox.offer(quiet, Verb.LOG, b"{}")
    settle(outbox)
    assert room.is_done
    assert outbox.room(quiet) is None
    assert outbox.offer(quiet, Verb.LOG, b"{}")


def test_last_write_is_kept_even_when_there_is_no_room() -> None:
    """A job's outcome is never refused; afterwards nothing is taken from it."""
    outbox = make_outbox()
    attempt = make_attempt(outbox)
    for _ in range(3):
        outbox.put(attempt, Verb.LOG, b"{}")
    assert outbox.close(attempt, Verb.COMPLETE, b"1")
    assert not outbox.put(attempt, Verb.LOG, b"{}")
    assert not outbox.close(attempt, Verb.FAIL, b"{}")
    assert outbox.room(attempt) is None


def test_stored_is_told_when_the_last_write_so_far_is_settled() -> None:
    """What is written after the question does not delay its answer."""
    outbox = make_outbox()
    attempt = make_attempt(outbox)
    assert outbox.stored(attempt) is None
    for _ in range(2):
        outbox.put(attempt, Verb.LOG, b"{}")
    stored = outbox.stored(attempt)
    assert stored is not None
    outbox.put(attempt, Verb.LOG, b"{}")
    batch = outbox.take()
    assert not stored.is_done
    outbox.settle(batch, [WriteCode.DONE, WriteCode.REPEATED])
    assert stored.is_done
    assert not outbox.is_empty


def test_lost_attempt_leaves_nothing_behind() -> None:
    """Its writes are dropped, what is under way is accounted for, and who waits for it is told."""
    outbox = make_outbox()
    lost, other = make_attempt(outbox), make_attempt(outbox)
    for _ in range(3):
        outbox.put(lost, Verb.LOG, b"{}")
    outbox.put(other, Verb.LOG, b"{}")
    outbox.join(lost, "s", "text")
    waiting = [outbox.room(lost), outbox.stored(lost)]
    batch = outbox.take()
    lost.ask_to_stop(StopReason.LOST)
    assert all(waiter is not None and waiter.is_done for waiter in waiting)
    assert [w.id for w in outbox.take().writes] == [other.job_id]
    outbox.settle(batch, [WriteCode.REFUSED] * len(batch.writes))
    assert lost.pending_writes == 0
    assert lost.pending_bytes == 0
    with pytest.raises(JobLost):
        SyncJobContext(lost).output("x")


def test_thread_that_waits_for_room_learns_of_a_cancellation() -> None:
    """Back-pressure must not hide that the job is to stop."""
    outbox = make_outbox()
    attempt = make_attempt(outbox)
    context = SyncJobContext(attempt)
    context.output(1)
    context.output(2)
    caught: list[BaseException] = []

    def write() -> None:
        try:
            context.output(3)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    while not outbox._waiters:
        thread.join(0.001)
    attempt.ask_to_stop(StopReason.CANCELLED)
    thread.join(scaled(5))
    assert [type(error) for error in caught] == [JobCancelled]
    outbox.take()
    # It was told once, and may write what it has to say about it.
    attempt.outbox.bounds = Bounds()  # type: ignore[misc]  # room for it
    context.log("info", "cleaning up")


def test_stream_parts_become_one_write_when_their_time_has_come() -> None:
    """Not before; at once when the attempt ends; and never more than an event may hold."""
    now = 100.0
    outbox = Outbox(lambda: None, Bounds(), max_event_bytes=1024, clock=lambda: now)
    attempt = make_attempt(outbox)
    outbox.join(attempt, "s", "a")
    assert outbox.next_due() == 100.05
    now = 100.04
    outbox.join(attempt, "s", "b")
    assert outbox.take().writes == []
    now = 100.05
    batch = outbox.take()
    assert [orjson.loads(w.data)["chunk"] for w in batch.writes] == ["ab"]
    outbox.settle(batch, [WriteCode.DONE])
    outbox.join(attempt, "s", "c")
    outbox.put(attempt, Verb.LOG, b"{}")
    outbox.close(attempt, Verb.COMPLETE, b"null")
    writes = outbox.take().writes
    assert [w.verb for w in writes] == [Verb.LOG, Verb.OUTPUT, Verb.COMPLETE]
    assert orjson.loads(writes[1].data) == {"chunk": "c", "stream": "s"}
    assert outbox.next_due() is None


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=150), min_size=1, max_size=40))
def test_stream_loses_no_character_and_stays_within_the_bound(parts: list[str]) -> None:
    """However the parts fall, joined they are the text."""
    outbox = make_outbox(Bounds())
    attempt = make_attempt(outbox)
    for part in parts:
        outbox.join(attempt, "s", part)
    outbox.stored(attempt)
    writes = outbox.take().writes
    assert "".join(orjson.loads(w.data)["chunk"] for w in writes) == "".join(parts)
    assert all(len(w.data) <= 1024 for w in writes)


def test_many_threads_write_without_losing_count() -> None:
    """Each thread's writes keep their order, and the counters come back to zero."""
    outbox = make_outbox(Bounds(job_writes=10**6, total_writes=10**6))
    attempts = [make_attempt(outbox) for _ in range(4)]

    def write(attempt: Attempt) -> None:
        for n in range(500):
            outbox.put(attempt, Verb.OUTPUT, b"%d" % n)

    threads = [threading.Thread(target=write, args=[attempt]) for attempt in attempts]
    for thread in threads:
        thread.start()
    seen: dict[str, list[tuple[int, int]]] = {}
    while any(thread.is_alive() for thread in threads) or not outbox.is_empty:
        batch = outbox.take()
        for write_ in batch.writes:
            seen.setdefault(write_.id, []).append((write_.number, int(write_.data)))
        outbox.settle(batch, [WriteCode.DONE] * len(batch.writes))
    assert seen == {a.job_id: [(n + 1, n) for n in range(500)] for a in attempts}
    assert outbox.waiting == (0, 0)
