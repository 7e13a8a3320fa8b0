"""Leases and fencing: who may write, until when, and that each write counts once."""

from __future__ import annotations

import time

import pytest

from tidings.protocol import JobState
from tidings_tasks.store import Verb, Write, WriteCode, commands

from .bench import LEASE_MS, Bench


def renew(bench: Bench, *attempts: tuple[str, int]) -> list[WriteCode]:
    """Renew leases."""
    return bench.run(commands.renew(0, attempts, lease_ms=LEASE_MS))


def test_a_renewed_lease_does_not_lapse(bench: Bench) -> None:
    """It runs for a whole lease from the renewal on."""
    claim = bench.start()
    for _ in range(5):
        bench.advance(LEASE_MS - 1)
        bench.step()
        assert renew(bench, (claim.id, 1)) == [WriteCode.DONE]
    bench.advance(LEASE_MS - 1)
    bench.step()
    assert bench.state(claim.id) is JobState.RUNNING
    bench.advance(1)
    bench.step()
    assert bench.state(claim.id) is JobState.QUEUED


def test_a_lapsed_lease_can_be_renewed_until_somebody_reaps_it(bench: Bench) -> None:
    """A worker that was late but is there keeps its job."""
    claim = bench.start()
    bench.advance(LEASE_MS * 2)
    assert renew(bench, (claim.id, 1)) == [WriteCode.DONE]
    bench.step()
    assert bench.state(claim.id) is JobState.RUNNING


def test_renewing_tells_of_cancellation_and_loss(bench: Bench) -> None:
    """One code for each attempt, in order."""
    running, asked, lost, ended = (bench.start() for _ in range(4))
    bench.cancel(asked.id)
    bench.complete(ended)
    bench.advance(LEASE_MS - 1)
    renew(bench, (running.id, 1), (asked.id, 1))
    bench.advance(1)
    bench.step()
    codes = renew(
        bench,
        (running.id, 1),
        (asked.id, 1),
        (lost.id, 1),
        (ended.id, 1),
        (running.id, 2),
        (bench.new_id(), 1),
    )
    assert codes == [1, 2, 0, 0, 0, 0]


def test_a_job_asked_to_stop_is_still_renewed(bench: Bench) -> None:
    """Its function may take time to clean up."""
    claim = bench.start()
    bench.cancel(claim.id)
    bench.advance(LEASE_MS - 1)
    assert renew(bench, (claim.id, 1)) == [WriteCode.CANCEL_REQUESTED]
    bench.advance(LEASE_MS - 1)
    bench.step()
    assert bench.state(claim.id) is JobState.RUNNING


@pytest.mark.parametrize("verb", list(Verb))
def test_a_stale_attempt_writes_nothing(bench: Bench, verb: Verb) -> None:
    """The worker that was thought lost comes back while another one runs the job."""
    stale = bench.start()
    bench.lose_worker()
    bench.claim(worker="w2")
    before = bench.snapshot()
    assert bench.write(stale, verb, {"code": "x"}) is WriteCode.REFUSED
    assert bench.snapshot() == before


@pytest.mark.parametrize("verb", list(Verb))
def test_a_future_attempt_writes_nothing(bench: Bench, verb: Verb) -> None:
    """Nobody writes under an attempt that was not handed out."""
    claim = bench.start()
    before = bench.snapshot()
    [code] = bench.step([Write(claim.id, 2, 1, verb, b"{}", '{"delay_ms":0}')]).codes
    assert code is WriteCode.REFUSED
    assert bench.snapshot() == before


@pytest.mark.parametrize("verb", list(Verb))
def test_a_repeated_write_number_writes_nothing(bench: Bench, verb: Verb) -> None:
    """Whatever it says: the store has seen the number."""
    claim = bench.start()
    for percent in (10, 20, 30):
        bench.progress(claim, percent)
    before = bench.snapshot()
    for number in (1, 2, 3):
        [code] = bench.step([Write(claim.id, 1, number, verb, b"{}", '{"delay_ms":0}')]).codes
        assert code is WriteCode.REPEATED
    assert bench.snapshot() == before


def test_write_numbers_begin_anew_with_each_attempt(bench: Bench) -> None:
    """The second attempt's first write is number 1 again."""
    first = bench.start()
    bench.progress(first, 10)
    bench.progress(first, 20)
    bench.write(first, Verb.RELEASE)
    second = bench.claim()
    assert bench.progress(second, 30) is WriteCode.DONE
    assert [e["attempt"] for e in bench.events(first.id)] == [0, 1, 1, 1, 2, 2]


def test_nothing_that_follows_the_last_write_in_its_batch_counts(bench: Bench) -> None:
    """A batch ends where the attempt ends."""
    claim = bench.start()
    writes = [
        bench.make_write(claim, verb, {"n": n})
        for n, verb in enumerate((Verb.LOG, Verb.COMPLETE, Verb.LOG, Verb.FAIL))
    ]
    assert bench.step(writes).codes == [1, 1, 0, 0]
    assert bench.kinds(claim.id) == ["queued", "started", "log", "completed"]


def test_the_writes_of_a_lapsed_lease_count_until_it_is_reaped(bench: Bench) -> None:
    """A step writes before it reaps, so a worker that is just in time has finished its job."""
    claim = bench.start()
    bench.advance(LEASE_MS)
    assert bench.step([bench.make_write(claim, Verb.COMPLETE, 1)]).codes == [WriteCode.DONE]
    assert bench.state(claim.id) is JobState.COMPLETED


def test_nothing_is_reaped_for_one_lease_after_the_store_was_away(bench: Bench) -> None:
    """Workers could not renew while it was gone; and nobody is told to hurry meanwhile."""
    claim = bench.start()
    bench.advance(LEASE_MS * 10)
    bench.begin_generation()
    bench.checks = False
    assert bench.step().next_due_ms == LEASE_MS
    bench.advance(LEASE_MS - 1)
    assert bench.step().next_due_ms == 1
    assert bench.state(claim.id) is JobState.RUNNING
    bench.advance(1)
    bench.step()
    assert bench.state(claim.id) is JobState.QUEUED


def test_due_jobs_are_not_held_back_after_the_store_was_away(bench: Bench) -> None:
    """Only leases are."""
    job_id = bench.add(due="+1000")
    bench.advance(1000)
    bench.begin_generation()
    bench.step()
    assert bench.state(job_id) is JobState.QUEUED


def test_the_clock_never_goes_back(bench: Bench) -> None:
    """A machine whose clock is behind takes the newest time the store has seen."""
    claim = bench.start()
    bench.progress(claim, 1)
    times = [event["at"] for event in bench.events(claim.id)]
    assert set(times) == {"2100-01-01T00:00:00.000Z"}
    assert bench.step().now_ms == bench.now_ms


def test_the_newest_time_is_remembered(bench: Bench) -> None:
    """Whatever was written under it, so that a machine that is behind goes on from there."""
    bench.raw.delete(bench.key("clock"))
    [entry] = bench.store.run(commands.enqueue(0, [bench.submission()]))
    seen = int(bench.raw.get(bench.key("clock")))
    assert abs(seen - time.time() * 1000) < 60_000
    assert bench.record(entry.id).created_ms == seen


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (12_622_780_800_000, "2370-01-01T00:00:00.000Z"),
        (13_601_087_999_001, "2400-12-31T23:59:59.001Z"),
        (13_574_563_200_000, "2400-02-29T00:00:00.000Z"),
    ],
)
def test_times_are_civil_dates(bench: Bench, ms: int, text: str) -> None:
    """Leap years by the Gregorian rule, milliseconds kept."""
    bench.set_clock(ms)
    assert bench.last_event(bench.add())["at"] == text


def test_a_renewal_that_shortens_a_lease_is_heeded(bench: Bench) -> None:
    """As where releases with different leases work side by side: it lapses at its new end."""
    claim = bench.start()
    assert bench.run(commands.renew(0, [(claim.id, claim.attempt)], lease_ms=100)) == [WriteCode.DONE]
    bench.advance(99)
    bench.step()
    assert bench.state(claim.id) is JobState.RUNNING
    bench.advance(1)
    bench.step()
    assert bench.kinds(claim.id)[-2:] == ["retrying", "queued"]
