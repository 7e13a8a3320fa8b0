"""What a submission may ask for besides its input: expiry, deduplication and debouncing; and changing a waiting job."""

from __future__ import annotations

import dataclasses

import pytest

from tidings.protocol import JobState
from tidings_tasks.store import Outcome, QueueState, Tenant, Verb, commands

from .bench import Bench, spec_of

ERROR = {"code": "exception", "type": "ValueError", "message": "no"}


# Expiry


def test_a_job_is_not_begun_after_its_time(bench: Bench) -> None:
    """It fails as expired, is no dead letter, and no attempt was made."""
    job_id = bench.add(expires="+1000")
    bench.advance(1000)
    reply = bench.step(wants=[("default", 1)])
    assert reply.claims == []
    event = bench.last_event(job_id)
    assert (event["kind"], event["attempt"]) == ("failed", 0)
    assert (event["data"]["error"]["code"], event["data"]["dead"]) == ("expired", False)
    assert bench.record(job_id).tries == 0


def test_a_job_expires_where_no_worker_is(bench: Bench) -> None:
    """Any step ends it, and one is asked for in time."""
    job_id = bench.add(expires="+1000")
    assert bench.step().next_due_ms == 1000
    bench.advance(1000)
    bench.step()
    assert bench.state(job_id) is JobState.FAILED


def test_a_job_that_has_begun_does_not_expire(bench: Bench) -> None:
    """Not while it runs; but it is not tried again after its time."""
    claim = bench.start(expires="+1000")
    bench.advance(5000)
    bench.step()
    assert bench.state(claim.id) is JobState.RUNNING
    bench.write(claim, Verb.RETRY, ERROR, {"delay_ms": 0})
    bench.step()
    assert bench.last_event(claim.id)["data"]["error"]["code"] == "expired"


def test_a_scheduled_job_may_expire_too(bench: Bench) -> None:
    """Given as a time of the store, it is one."""
    job_id = bench.add(due="+5000", expires=str(bench.now_ms + 2000))
    assert bench.record(job_id).expires_ms == bench.now_ms + 2000
    bench.advance(2000)
    bench.step()
    assert bench.state(job_id) is JobState.FAILED


# Deduplication


def test_an_open_job_keeps_its_twin_out(bench: Bench) -> None:
    """The twin is answered with the job that is there; when that has ended, another one may come."""
    first = bench.add(dedup_key="k")
    [twin] = bench.enqueue(bench.submission(dedup_key="k"))
    assert (twin.outcome, twin.id) == (Outcome.DUPLICATE, first)
    claim = bench.claim()
    [twin] = bench.enqueue(bench.submission(dedup_key="k"))
    assert twin.outcome is Outcome.DUPLICATE
    bench.complete(claim)
    [after] = bench.enqueue(bench.submission(dedup_key="k"))
    assert after.outcome is Outcome.CREATED


def test_a_key_is_the_owners(bench: Bench) -> None:
    """Nobody learns of another's job by guessing its key, not even in one org."""
    bench.add(Tenant("alice", "acme"), dedup_key="k")
    [other] = bench.enqueue(bench.submission(Tenant("bob", "acme"), dedup_key="k"))
    assert other.outcome is Outcome.CREATED


def test_two_twins_of_one_call_are_one_job(bench: Bench) -> None:
    """The first one is stored."""
    one, two = bench.submission(dedup_key="k"), bench.submission(dedup_key="k")
    found = bench.enqueue(one, two)
    assert [(entry.outcome, entry.id) for entry in found] == [
        (Outcome.CREATED, one.id),
        (Outcome.DUPLICATE, one.id),
    ]


def test_a_twins_request_is_answered_with_the_same_job_when_it_is_repeated(bench: Bench) -> None:
    """Also when that job has ended meanwhile: the idempotency key promises so."""
    first = bench.add(dedup_key="k")
    request = {"dedup_key": "k", "idempotency_key": "i", "fingerprint": "f"}
    [twin] = bench.enqueue(bench.submission(**request))
    assert (twin.outcome, twin.id) == (Outcome.DUPLICATE, first)
    bench.complete(bench.claim())
    [again] = bench.enqueue(bench.submission(**request))
    assert (again.outcome, again.id) == (Outcome.REPLAYED, first)


def test_a_key_with_a_lifetime_outlives_its_job(bench: Bench) -> None:
    """So a burst of requests makes one job even when that is quick."""
    first = bench.add(dedup_key="k", dedup_ttl_ms=60_000)
    bench.complete(bench.claim())
    [twin] = bench.enqueue(bench.submission(dedup_key="k", dedup_ttl_ms=60_000))
    assert (twin.outcome, twin.id) == (Outcome.DUPLICATE, first)
    assert 0 < bench.raw.pttl(bench.key("u:acme/alice:k")) <= 60_000


def test_a_repeat_of_the_submission_itself_is_no_twin(bench: Bench) -> None:
    """A client that lost the reply is told that its job is stored."""
    submission = bench.submission(dedup_key="k")
    assert bench.enqueue(submission)[0].outcome is Outcome.CREATED
    assert bench.enqueue(submission)[0].outcome is Outcome.CREATED


def test_a_debounced_job_waits_for_the_last_of_a_burst(bench: Bench) -> None:
    """Each repeat moves its time and brings the newer input; what has begun is left alone."""
    first = bench.add(dedup_key="k", debounce=True, due="+1000")
    for n in range(2):
        bench.advance(600)
        newer = bench.submission(dedup_key="k", debounce=True, due="+1000")
        newer = dataclasses.replace(newer, spec=spec_of(input={"steps": n}))
        [entry] = bench.enqueue(newer)
        assert (entry.outcome, entry.id) == (Outcome.DUPLICATE, first)
    assert bench.record(first).due_ms == bench.now_ms + 1000
    bench.advance(999)
    assert bench.step(wants=[("default", 1)]).claims == []
    bench.advance(1)
    [claim] = bench.step(wants=[("default", 1)]).claims
    assert (claim.id, claim.spec.input) == (first, {"steps": 1})
    [entry] = bench.enqueue(bench.submission(dedup_key="k", debounce=True, due="+1000"))
    assert (entry.outcome, bench.state(first)) == (Outcome.DUPLICATE, JobState.RUNNING)
    times = [e["data"]["run_at"] for e in bench.events(first) if e["kind"] == "scheduled"]
    assert len(times) == 3 == len(set(times))


def test_of_a_burst_in_one_call_the_last_one_counts(bench: Bench) -> None:
    """It takes the first one's place with its input and its number of tries, and a repeat of the call changes nothing."""
    made = [
        dataclasses.replace(
            bench.submission(dedup_key="k", debounce=True, due=f"+{1000 * n}"),
            spec=spec_of(input={"steps": n}, max_attempts=n),
        )
        for n in (1, 2, 3)
    ]
    first = made[0].id
    assert {entry.id for entry in bench.enqueue(*made)} == {first}
    assert bench.kinds(first) == ["scheduled", "scheduled"]
    assert bench.record(first).due_ms == bench.now_ms + 3000
    bench.advance(3000)
    claim = bench.claim()
    assert claim.spec.input == {"steps": 3}
    for _ in range(2):
        bench.write(claim, Verb.RETRY, ERROR, {"delay_ms": 0})
        claim = bench.claim()
    bench.write(claim, Verb.RETRY, ERROR, {"delay_ms": 0})
    assert bench.state(claim.id) is JobState.FAILED


def test_the_twin_of_a_job_that_found_no_room_is_told_so_too(bench: Bench) -> None:
    """Though there would be room for it elsewhere: a repeat of the call gets the same answers."""
    bench.run(commands.set_queue_state(0, "default", QueueState.DRAINING))
    found = bench.enqueue(bench.submission(dedup_key="k"), bench.submission(dedup_key="k", queue="other"))
    assert [entry.outcome for entry in found] == [Outcome.DRAINING, Outcome.DRAINING]


# Changing


def change(bench: Bench, job_id: str, **options: int) -> str:
    """Change a job; returns the outcome."""
    return bench.run(commands.change(job_id, **options))[0]


def test_a_queued_job_may_be_moved_forward(bench: Bench) -> None:
    """A new priority is a new place, and an event."""
    first, second = bench.add(), bench.add()
    assert change(bench, second, priority=1) == "changed"
    assert bench.events(second)[-1]["data"] == {"queue": "default", "priority": 1}
    assert [e["data"]["priority"] for e in bench.events(second)] == [3, 1]
    assert [bench.claim().id for _ in range(2)] == [second, first]


def test_the_priority_of_a_scheduled_job_holds_when_it_is_due(bench: Bench) -> None:
    """Nothing a watcher sees has changed until then."""
    late = bench.add(due="+1000")
    assert change(bench, late, priority=1) == "changed"
    assert bench.kinds(late) == ["scheduled"]
    first = bench.add()
    bench.advance(1000)
    bench.step()
    assert [bench.claim().id for _ in range(2)] == [late, first]


def test_the_time_of_a_scheduled_job_may_be_moved(bench: Bench) -> None:
    """Later, earlier, and to now."""
    job_id = bench.add(due="+5000")
    assert change(bench, job_id, due_ms=bench.now_ms + 9000) == "changed"
    bench.advance(5000)
    bench.step()
    assert bench.state(job_id) is JobState.SCHEDULED
    assert change(bench, job_id, due_ms=bench.now_ms) == "changed"
    assert bench.kinds(job_id) == ["scheduled", "scheduled", "queued"]
    assert bench.claim().id == job_id


def test_a_queued_job_may_be_put_off(bench: Bench) -> None:
    """queued → scheduled, with another priority at once if wanted."""
    job_id = bench.add()
    assert change(bench, job_id, priority=2, due_ms=bench.now_ms + 1000) == "changed"
    assert [(e["kind"], e["data"]) for e in bench.events(job_id)] == [
        ("queued", {"queue": "default", "priority": 3}),
        ("scheduled", {"run_at": "2100-01-01T00:00:01.000Z"}),
    ]
    assert bench.step(wants=[("default", 1)]).claims == []
    bench.advance(1000)
    bench.step()
    assert bench.events(job_id)[-1]["data"] == {"queue": "default", "priority": 2}


def test_a_job_that_waits_for_its_next_try_may_be_tried_now(bench: Bench) -> None:
    """But not later: its delay is its policy's."""
    claim = bench.start()
    bench.write(claim, Verb.RETRY, ERROR, {"delay_ms": 60_000})
    assert change(bench, claim.id, due_ms=bench.now_ms + 1000) == "illegal"
    assert change(bench, claim.id, due_ms=bench.now_ms) == "changed"
    assert bench.claim().id == claim.id


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.COMPLETED, JobState.CANCELLED])
def test_a_job_that_does_not_wait_is_not_changed(bench: Bench, state: JobState) -> None:
    """Nothing is done, and the answer says in which state it is."""
    claim = bench.start()
    if state is JobState.COMPLETED:
        bench.complete(claim)
    elif state is JobState.CANCELLED:
        bench.write(claim, Verb.CANCEL)
    before = bench.snapshot()
    outcome, told, _ = bench.run(commands.change(claim.id, priority=1, due_ms=bench.now_ms + 1000))
    assert (outcome, told) == ("illegal", state)
    assert bench.snapshot() == before
    assert change(bench, bench.new_id(), priority=1) == "gone"


def test_a_change_to_what_is_changes_nothing(bench: Bench) -> None:
    """No event, no other place."""
    job_id = bench.add()
    before = bench.snapshot()
    assert change(bench, job_id, priority=3) == "unchanged"
    assert change(bench, job_id, due_ms=bench.now_ms) == "unchanged"
    assert bench.snapshot() == before
