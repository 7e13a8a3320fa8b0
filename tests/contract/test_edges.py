"""What marks each edge of the state machine: its event, its data and what the record shows (contract §2)."""

from __future__ import annotations

import pytest

from tidings.protocol import JobState
from tidings_tasks.store import Claim, Verb, WriteCode

from .bench import ALICE, LEASE_MS, START_MS, Bench

ERROR = {"code": "exception", "type": "ValueError", "message": "no"}
LOST = {"code": "worker_lost", "type": "WorkerLost", "message": "the worker that ran this job went away"}
START = "2100-01-01T00:00:00.000Z"
QUEUED = {"queue": "default", "priority": 3}


def test_a_new_job_is_queued(bench: Bench) -> None:
    """– → queued: event 1 says where it waits."""
    job_id = bench.add()
    epoch = bench.record(job_id).epoch
    assert bench.events(job_id) == [
        {
            "job_id": job_id, "epoch": epoch, "seq": 1, "kind": "queued", "at": START, "attempt": 0,
            "data": QUEUED,
        }
    ]  # fmt: skip
    record = bench.record(job_id)
    assert (record.state, record.head, record.attempt, record.tries) == (JobState.QUEUED, 1, 0, 0)
    assert (record.created_ms, record.updated_ms, record.due_ms) == (START_MS, START_MS, None)
    assert (record.queue_place, record.position) == (1, f"{epoch}:1")


@pytest.mark.parametrize("due", ["+5000", str(START_MS + 5000)])
def test_a_new_job_with_a_due_time_is_scheduled(bench: Bench, due: str) -> None:
    """– → scheduled: counted from the store's now, or at a given time."""
    job_id = bench.add(due=due)
    assert [(e["kind"], e["data"]) for e in bench.events(job_id)] == [
        ("scheduled", {"run_at": "2100-01-01T00:00:05.000Z"})
    ]
    record = bench.record(job_id)
    assert (record.state, record.due_ms, record.queue_place) == (JobState.SCHEDULED, START_MS + 5000, None)


@pytest.mark.parametrize("due", ["+0", str(START_MS), "1"])
def test_a_job_that_is_already_due_is_queued_at_once(bench: Bench, due: str) -> None:
    """A due time that is not in the future is no delay."""
    job_id = bench.add(due=due)
    assert bench.kinds(job_id) == ["queued"]


def test_a_scheduled_job_is_queued_when_it_is_due_and_not_before(bench: Bench) -> None:
    """scheduled → queued."""
    job_id = bench.add(due="+5000")
    bench.advance(4999)
    assert bench.step(wants=[("default", 1)]).claims == []
    assert bench.state(job_id) is JobState.SCHEDULED
    bench.advance(1)
    [claim] = bench.step(wants=[("default", 1)]).claims
    assert claim.id == job_id
    assert [(e["kind"], e["data"]) for e in bench.events(job_id)][1:] == [
        ("queued", QUEUED),
        ("started", {"worker": "w1", "attempt": 1}),
    ]


def test_a_claimed_job_runs(bench: Bench) -> None:
    """queued → running: the attempt is numbered and the worker named."""
    claim = bench.start()
    assert (claim.attempt, claim.tries, claim.queue) == (1, 0, "default")
    assert (claim.spec.type, claim.spec.owner, claim.spec.org) == ("demo.steps", "alice", "acme")
    event = bench.last_event(claim.id)
    assert (event["kind"], event["attempt"]) == ("started", 1)
    assert event["data"] == {"worker": "w1", "attempt": 1}
    record = bench.record(claim.id)
    assert (record.state, record.worker, record.started_ms) == (JobState.RUNNING, "w1", START_MS)


def test_a_running_job_completes(bench: Bench) -> None:
    """running → completed: with its result and how long the attempt took."""
    claim = bench.start()
    bench.advance(1234)
    assert bench.complete(claim, {"rows": 3}) is WriteCode.DONE
    event = bench.last_event(claim.id)
    assert (event["kind"], event["attempt"]) == ("completed", 1)
    assert event["data"] == {"result": {"rows": 3}, "duration_s": 1.234}
    record = bench.record(claim.id)
    assert (record.state, record.result) == (JobState.COMPLETED, b'{"rows":3}')
    assert (record.created_ms, record.updated_ms, record.finished_ms) == (
        START_MS,
        START_MS + 1234,
        START_MS + 1234,
    )


def test_a_result_over_64_kib_is_referred_to(bench: Bench) -> None:
    """The event says where the result is; the record has it whole."""
    claim = bench.start()
    result = "x" * 65_535
    bench.complete(claim, result)
    data = bench.last_event(claim.id)["data"]
    assert data == {"result_ref": f"/api/jobs/{claim.id}/result", "duration_s": 0.0}
    record = bench.record(claim.id)
    assert record.result is not None
    assert len(record.result) == 65_537
    assert record.view()["result_ref"] == data["result_ref"]


def test_a_result_of_exactly_64_kib_is_embedded(bench: Bench) -> None:
    """The bound itself is still inside."""
    claim = bench.start()
    bench.complete(claim, "x" * 65_534)
    assert bench.last_event(claim.id)["data"]["result"] == "x" * 65_534


def test_a_failed_attempt_is_retried_after_its_delay(bench: Bench) -> None:
    """running → retrying → queued → running: the delay is kept by the store, the attempt goes up."""
    claim = bench.start()
    bench.write(claim, Verb.RETRY, ERROR, {"delay_ms": 1500})
    event = bench.last_event(claim.id)
    assert (event["kind"], event["attempt"]) == ("retrying", 1)
    assert event["data"] == {"error": ERROR, "delay_s": 1.5, "next_attempt": 2}
    record = bench.record(claim.id)
    assert (record.state, record.tries, record.due_ms) == (JobState.RETRYING, 1, START_MS + 1500)
    bench.advance(1499)
    assert bench.step(wants=[("default", 1)]).claims == []
    bench.advance(1)
    [again] = bench.step(wants=[("default", 1)]).claims
    assert (again.id, again.attempt, again.tries) == (claim.id, 2, 1)
    assert bench.kinds(claim.id) == ["queued", "started", "retrying", "queued", "started"]
    assert bench.events(claim.id)[3]["attempt"] == 1


def test_a_retry_without_delay_is_queued_in_the_same_step(bench: Bench) -> None:
    """Nothing waits for another call when nothing is to be waited for."""
    claim = bench.start()
    bench.write(claim, Verb.RETRY, ERROR, {"delay_ms": 0})
    assert bench.kinds(claim.id)[-2:] == ["retrying", "queued"]
    assert bench.state(claim.id) is JobState.QUEUED


def test_a_retry_without_tries_left_fails(bench: Bench) -> None:
    """running → failed: the store counts the tries itself, whatever the worker believes."""
    claim = bench.start(max_attempts=1)
    bench.write(claim, Verb.RETRY, ERROR, {"delay_ms": 1500})
    event = bench.last_event(claim.id)
    assert (event["kind"], event["data"]) == ("failed", {"error": ERROR, "duration_s": 0.0, "dead": True})
    assert bench.record(claim.id).tries == 1


@pytest.mark.parametrize(("extra", "dead"), [({"dead": True}, True), ({}, False), ({"dead": False}, False)])
def test_a_running_job_fails(bench: Bench, extra: dict[str, bool], dead: bool) -> None:
    """running → failed: with the error, and whether it belongs among the dead letters."""
    claim = bench.start()
    bench.advance(500)
    bench.write(claim, Verb.FAIL, ERROR, extra)
    event = bench.last_event(claim.id)
    assert (event["kind"], event["data"]) == ("failed", {"error": ERROR, "duration_s": 0.5, "dead": dead})
    record = bench.record(claim.id)
    assert (record.state, record.tries) == (JobState.FAILED, 1)
    assert record.error is not None


def test_a_handed_back_job_is_queued_and_no_try_is_counted(bench: Bench) -> None:
    """running → queued (shutdown): the next attempt has another number but no try less."""
    claim = bench.start(max_attempts=1)
    bench.write(claim, Verb.RELEASE)
    event = bench.last_event(claim.id)
    assert (event["kind"], event["data"]) == ("queued", QUEUED | {"reason": "shutdown"})
    again = bench.claim()
    assert (again.id, again.attempt, again.tries) == (claim.id, 2, 0)


def test_a_lost_worker_is_retried_at_once(bench: Bench) -> None:
    """running → retrying → queued when the lease lapses, under the old attempt."""
    claim = bench.start()
    bench.advance(LEASE_MS - 1)
    bench.step()
    assert bench.state(claim.id) is JobState.RUNNING
    bench.advance(1)
    bench.step()
    events = bench.events(claim.id)[2:]
    assert [(e["kind"], e["attempt"], e["data"]) for e in events] == [
        ("retrying", 1, {"error": LOST, "delay_s": 0, "next_attempt": 2}),
        ("queued", 1, QUEUED),
    ]
    record = bench.record(claim.id)
    assert (record.state, record.tries) == (JobState.QUEUED, 1)


def test_the_third_lost_worker_is_the_last(bench: Bench) -> None:
    """running → failed by the reaper, however many tries are left."""
    job_id = bench.add(max_attempts=10)
    for attempt in (1, 2, 3):
        assert bench.claim().attempt == attempt
        bench.lose_worker()
    event = bench.last_event(job_id)
    assert (event["kind"], event["attempt"]) == ("failed", 3)
    assert event["data"] == {"error": LOST, "duration_s": 6.0, "dead": True}


def test_a_lost_worker_without_tries_left_fails(bench: Bench) -> None:
    """running → failed by the reaper: a lost worker counts as a try."""
    claim = bench.start(max_attempts=1)
    bench.lose_worker()
    assert bench.last_event(claim.id)["data"]["dead"] is True
    assert bench.state(claim.id) is JobState.FAILED


def test_a_job_cancelled_while_it_waits_ends_at_once(bench: Bench) -> None:
    """scheduled, queued, retrying → cancelled: it never runs again."""
    scheduled = bench.add(due="+5000")
    queued = bench.add(queue="other")
    retrying = bench.start()
    bench.write(retrying, Verb.RETRY, ERROR, {"delay_ms": 1000})
    for job_id in (scheduled, queued, retrying.id):
        assert bench.cancel(job_id, by="bob", reason="mistake") == ("cancelled", JobState.CANCELLED)
        event = bench.last_event(job_id)
        assert (event["kind"], event["data"]) == ("cancelled", {"by": "bob", "reason": "mistake"})
    bench.advance(10_000)
    assert bench.step(wants=[("default", 5), ("other", 5)]).claims == []


def test_a_running_job_is_asked_first(bench: Bench) -> None:
    """running → cancelled only after `cancelling`; its worker finds a message and is told with every answer."""
    claim = bench.start()
    assert bench.cancel(claim.id, by="bob", reason="mistake") == ("cancelling", JobState.RUNNING)
    assert bench.last_event(claim.id)["kind"] == "cancelling"
    assert bench.last_event(claim.id)["data"] == {"by": "bob"}
    assert bench.record(claim.id).cancel_requested
    assert bench.raw.lrange(bench.keyspace.mailbox(0, "w1"), 0, -1) == [f"cancel {claim.id}:1".encode()]
    assert bench.progress(claim, 50) is WriteCode.CANCEL_REQUESTED
    assert bench.write(claim, Verb.CANCEL) is WriteCode.CANCEL_REQUESTED
    event = bench.last_event(claim.id)
    assert (event["kind"], event["data"]) == ("cancelled", {"by": "bob", "reason": "mistake"})


def test_asking_twice_asks_once(bench: Bench) -> None:
    """A second request changes nothing and is answered alike."""
    claim = bench.start()
    bench.cancel(claim.id, by="bob")
    before = bench.snapshot()
    assert bench.cancel(claim.id, by="carol") == ("cancelling", JobState.RUNNING)
    assert bench.snapshot() == before


@pytest.mark.parametrize(
    ("verb", "kind"), [(Verb.RETRY, "cancelled"), (Verb.RELEASE, "cancelled"), (Verb.FAIL, "failed")]
)
def test_a_job_asked_to_stop_is_not_started_again(bench: Bench, verb: Verb, kind: str) -> None:
    """What would go back to the queue ends as cancelled instead; what ends, ends as it does."""
    claim = bench.start()
    bench.cancel(claim.id)
    bench.write(claim, verb, ERROR)
    assert bench.last_event(claim.id)["kind"] == kind


def test_a_job_asked_to_stop_may_still_complete(bench: Bench) -> None:
    """Whoever finishes before noticing the request has finished."""
    claim = bench.start()
    bench.cancel(claim.id)
    bench.complete(claim, 1)
    assert bench.kinds(claim.id)[-2:] == ["cancelling", "completed"]


def test_a_job_asked_to_stop_whose_worker_is_lost_is_cancelled(bench: Bench) -> None:
    """The reaper honours the request."""
    claim = bench.start()
    bench.cancel(claim.id, by="bob", reason="mistake")
    bench.lose_worker()
    event = bench.last_event(claim.id)
    assert (event["kind"], event["data"]) == ("cancelled", {"by": "bob", "reason": "mistake"})


def test_a_job_that_cancels_itself_says_so_first(bench: Bench) -> None:
    """running → cancelled comes after `cancelling`, also when nobody else asked."""
    claim = bench.start()
    bench.write(claim, Verb.CANCEL, "had enough")
    assert [(e["kind"], e["data"]) for e in bench.events(claim.id)[2:]] == [
        ("cancelling", {"by": None}),
        ("cancelled", {"by": None, "reason": "had enough"}),
    ]


def end_in(bench: Bench, state: JobState) -> Claim:
    """Bring a new job to an end."""
    claim = bench.start()
    verb = {
        JobState.COMPLETED: Verb.COMPLETE,
        JobState.FAILED: Verb.FAIL,
        JobState.CANCELLED: Verb.CANCEL,
    }[state]
    bench.write(claim, verb, ERROR)
    assert bench.state(claim.id) is state
    return claim


@pytest.mark.parametrize("state", [JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED])
def test_the_terminal_event_is_the_last(bench: Bench, state: JobState) -> None:
    """Whatever is tried on an ended job is refused and leaves no trace."""
    claim = end_in(bench, state)
    before = bench.snapshot()
    for verb in Verb:
        assert bench.write(claim, verb, ERROR) is WriteCode.REFUSED
    assert bench.cancel(claim.id) == ("terminal", state)
    bench.lose_worker()
    assert bench.step(wants=[("default", 5)]).claims == []
    assert {k: v for k, v in bench.snapshot().items() if k != ":clock"} == {
        k: v for k, v in before.items() if k != ":clock"
    }


def wait_in(bench: Bench, state: JobState) -> Claim:
    """Bring a job that has run once to a state in which nobody runs it."""
    claim = bench.start(max_attempts=5)
    if state is JobState.QUEUED:
        bench.write(claim, Verb.RELEASE)
    else:
        bench.write(claim, Verb.RETRY, ERROR, {"delay_ms": 5000})
    assert bench.state(claim.id) is state
    return claim


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RETRYING])
@pytest.mark.parametrize("verb", list(Verb))
def test_only_a_running_job_is_written_to(bench: Bench, state: JobState, verb: Verb) -> None:
    """Every verb is refused for a job that waits, also from the attempt that was the last."""
    claim = wait_in(bench, state)
    before = bench.snapshot()
    assert bench.write(claim, verb, ERROR) is WriteCode.REFUSED
    assert bench.snapshot() == before


@pytest.mark.parametrize("due", ["", "+5000"])
@pytest.mark.parametrize("verb", list(Verb))
def test_a_job_that_never_ran_is_written_to_by_nobody(bench: Bench, due: str, verb: Verb) -> None:
    """Attempt 0 belongs to no worker."""
    job_id = bench.add(due=due)
    nobody = Claim(job_id, 0, "default", 0, bench.record(job_id).spec)
    before = bench.snapshot()
    assert bench.write(nobody, verb, ERROR) is WriteCode.REFUSED
    assert bench.snapshot() == before
    assert bench.counts(ALICE) == {JobState.SCHEDULED if due else JobState.QUEUED: 1}


def test_jobs_that_are_not_there_are_gone(bench: Bench) -> None:
    """Every call on an unknown id says so and makes nothing."""
    unknown = Claim(bench.new_id(), 1, "default", 0, bench.submission().spec)
    before = bench.snapshot()
    assert bench.write(unknown, Verb.COMPLETE) is WriteCode.REFUSED
    assert bench.cancel(unknown.id) == ("gone", None)
    assert bench.snapshot() == before
