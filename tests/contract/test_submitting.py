"""Storing jobs: idempotency keys, batches that are all or none, bounds, and what is refused before anything is written."""

from __future__ import annotations

import dataclasses

import pytest
from redis.exceptions import ResponseError

from tidings.protocol import JobState
from tidings_tasks.store import Command, Outcome, Submission, Tenant, Verb, commands, submissions

from .bench import ALICE, START_MS, Bench


def outcomes(found: list[commands.Enqueued]) -> list[str]:
    """Return what became of each submission."""
    return [entry.outcome.value for entry in found]


def keyed(bench: Bench, key: str = "k", fingerprint: str = "f", tenant: Tenant = ALICE) -> Submission:
    """Make a submission with an idempotency key."""
    return bench.submission(tenant, idempotency_key=key, fingerprint=fingerprint)


def test_the_same_request_under_the_same_key_is_one_job(bench: Bench) -> None:
    """The second answer names the first job, and where its log stands by now."""
    first = keyed(bench)
    bench.enqueue(first)
    claim = bench.claim()
    [again] = bench.enqueue(keyed(bench))
    assert (again.outcome, again.id) == (Outcome.REPLAYED, first.id)
    assert again.position == bench.record(claim.id).position
    assert bench.counts() == {JobState.RUNNING: 1}


def test_another_request_under_the_same_key_is_a_conflict(bench: Bench) -> None:
    """It names the job that has the key, and stores nothing."""
    first = keyed(bench)
    bench.enqueue(first)
    before = bench.snapshot()
    [again] = bench.enqueue(keyed(bench, fingerprint="g"))
    assert (again.outcome, again.id) == (Outcome.CONFLICT, first.id)
    assert bench.snapshot() == before


def test_keys_belong_to_their_owner(bench: Bench) -> None:
    """Another owner, of the same org or none, has keys of their own."""
    tenants = [ALICE, Tenant("bob", "acme"), Tenant("alice"), Tenant("alice", "other")]
    assert outcomes(bench.enqueue(*[keyed(bench, tenant=t) for t in tenants])) == ["created"] * 4


def test_a_key_outlives_the_end_of_its_job_but_not_its_deletion(bench: Bench) -> None:
    """While the job is kept, it is the answer; afterwards the key is free."""
    first = keyed(bench)
    bench.enqueue(first)
    bench.complete(bench.claim())
    assert outcomes(bench.enqueue(keyed(bench))) == ["replayed"]
    bench.run(commands.delete(first.id))
    third = keyed(bench)
    assert outcomes(bench.enqueue(third)) == ["created"]
    assert bench.enqueue(keyed(bench))[0].id == third.id


def test_a_key_is_kept_for_a_day(bench: Bench) -> None:
    """Then it is free again, whatever became of the job."""
    bench.enqueue(keyed(bench))
    left_ms = bench.raw.pttl(bench.key(f"i:{ALICE.scope}:k"))
    assert isinstance(left_ms, int)
    assert 86_400_000 - 60_000 < left_ms <= 86_400_000


@pytest.mark.parametrize("all_or_none", [False, True])
def test_two_requests_of_one_call_under_one_key_are_one_job(bench: Bench, all_or_none: bool) -> None:
    """Requests that arrive together are treated as if they had come one after the other."""
    first, second = keyed(bench), keyed(bench)
    found = bench.enqueue(first, second, all_or_none=all_or_none)
    assert [(entry.outcome, entry.id) for entry in found] == [
        (Outcome.CREATED, first.id),
        (Outcome.REPLAYED, first.id),
    ]
    assert bench.counts() == {JobState.QUEUED: 1}


def test_two_different_requests_of_one_call_under_one_key_conflict(bench: Bench) -> None:
    """The first of them has the key; of all-or-none neither is stored."""
    pair = [keyed(bench), keyed(bench, fingerprint="g")]
    assert outcomes(bench.enqueue(*pair, all_or_none=True)) == ["refused", "conflict"]
    assert bench.counts() == {}
    assert outcomes(bench.enqueue(*pair)) == ["created", "conflict"]


def test_one_submission_twice_in_a_call_is_one_job(bench: Bench) -> None:
    """An id stands for one job, however often it is sent."""
    submission = bench.submission()
    assert outcomes(bench.enqueue(submission, submission)) == ["created", "created"]
    assert bench.kinds(submission.id) == ["queued"]


def test_a_stored_job_is_answered_as_created_however_far_it_is(bench: Bench) -> None:
    """A client that never got its answer learns that its job is there."""
    submission = bench.submission()
    bench.enqueue(submission)
    bench.complete(bench.claim())
    assert outcomes(bench.enqueue(submission)) == ["created"]
    assert bench.counts() == {JobState.COMPLETED: 1}


def test_a_full_queue_takes_what_it_has_room_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is exact, within a call and over calls, and another queue has its own."""
    monkeypatch.setattr(submissions, "MAX_QUEUE_LENGTH", 3)
    assert outcomes(bench.enqueue(bench.submission(), bench.submission())) == ["created"] * 2
    batch = [bench.submission(), bench.submission(), bench.submission(queue="other")]
    assert outcomes(bench.enqueue(*batch)) == ["created", "full", "created"]
    bench.claim()
    assert outcomes(bench.enqueue(bench.submission(), bench.submission())) == ["created", "full"]


def test_what_waits_for_its_time_is_bounded_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scheduled jobs have a bound of their own, over all queues, and take no room in a queue."""
    monkeypatch.setattr(submissions, "MAX_QUEUE_LENGTH", 2)
    later = [bench.submission(due="+1000", queue=queue) for queue in ("a", "b", "c")]
    assert outcomes(bench.enqueue(*later)) == ["created", "created", "full"]
    assert outcomes(bench.enqueue(*[bench.submission(queue="a") for _ in range(3)])) == [
        "created",
        "created",
        "full",
    ]


def test_all_or_none_stores_nothing_when_one_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch is refused whole, and a repeat of it later stores it whole."""
    monkeypatch.setattr(submissions, "MAX_QUEUE_LENGTH", 2)
    batch = [bench.submission(), keyed(bench), bench.submission()]
    before = bench.snapshot()
    assert outcomes(bench.enqueue(*batch, all_or_none=True)) == ["refused", "refused", "full"]
    assert bench.snapshot() == before
    monkeypatch.setattr(submissions, "MAX_QUEUE_LENGTH", 3)
    assert outcomes(bench.enqueue(*batch, all_or_none=True)) == ["created"] * 3


def test_a_twin_of_a_refused_request_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no replay of a job that was not stored."""
    monkeypatch.setattr(submissions, "MAX_QUEUE_LENGTH", 1)
    bench.add(queue="other")
    batch = [keyed(bench), keyed(bench), bench.submission(queue="other")]
    assert outcomes(bench.enqueue(*batch, all_or_none=True)) == ["refused", "refused", "full"]


def test_all_or_none_counts_a_replayed_job_as_stored(bench: Bench) -> None:
    """A batch that is sent again under its keys is answered, not refused."""
    bench.enqueue(keyed(bench))
    found = bench.enqueue(bench.submission(), keyed(bench), all_or_none=True)
    assert outcomes(found) == ["created", "replayed"]


def test_a_full_queue_answers_twins_alike(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two requests under one key that find no room are both told so."""
    monkeypatch.setattr(submissions, "MAX_QUEUE_LENGTH", 0)
    assert outcomes(bench.enqueue(keyed(bench), keyed(bench))) == ["full", "full"]


@pytest.mark.parametrize("fingerprint", ["f", "g"])
def test_requests_under_a_key_that_found_no_room_are_all_told_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fingerprint: str
) -> None:
    """Also one that would have had room: a repeat of the call must find the same, and the key stays free."""
    monkeypatch.setattr(submissions, "MAX_QUEUE_LENGTH", 1)
    bench.add(queue="full")
    second = bench.submission(queue="free", idempotency_key="k", fingerprint=fingerprint)
    first = bench.submission(queue="full", idempotency_key="k", fingerprint="f")
    assert outcomes(bench.enqueue(first, second)) == ["full", "full"]
    assert outcomes(bench.enqueue(second)) == ["created"]


def test_a_thousand_jobs_go_into_one_call(bench: Bench) -> None:
    """The largest batch of the contract is stored in order."""
    batch = [bench.submission() for _ in range(1_000)]
    assert set(outcomes(bench.enqueue(*batch, all_or_none=True))) == {"created"}
    bench.checks = False
    claims = bench.step(wants=[("default", 1_000)]).claims
    assert [claim.id for claim in claims] == [job.id for job in batch]


MALFORMED = [
    {"due": "tomorrow"},
    {"due": "+"},
    {"due": "-5"},
    {"due": "nan"},
    {"priority": "high"},
]


@pytest.mark.parametrize("fault", MALFORMED)
def test_a_malformed_submission_is_refused_before_anything_is_written(
    bench: Bench, fault: dict[str, object]
) -> None:
    """A script that fails half-way is not undone, so it must not fail half-way: not even for the last of a batch."""
    bad = dataclasses.replace(bench.submission(), **fault)  # type: ignore[arg-type]  # that is the fault
    before = bench.snapshot()
    with pytest.raises(ResponseError, match="INVALID"):
        bench.enqueue(bench.submission(), bad)
    assert bench.snapshot() == before


def test_a_cut_off_submission_is_refused_before_anything_is_written(bench: Bench) -> None:
    """Arguments come in elevens."""
    whole = commands.enqueue(0, [bench.submission(), bench.submission()])
    before = bench.snapshot()
    with pytest.raises(ResponseError, match="INVALID"):
        bench.store.run(Command("enqueue", 0, whole.args[:-1], lambda reply: reply))
    assert bench.snapshot() == before


@pytest.mark.parametrize(
    ("verb", "attempt", "extra"),
    [(Verb.RETRY, 1, ""), (Verb.RETRY, 1, "soon"), ("explode", 1, ""), (Verb.COMPLETE, "one", "")],
)
def test_a_malformed_write_is_refused_before_anything_is_written(
    bench: Bench, verb: Verb, attempt: int, extra: str
) -> None:
    """A good write before a bad one is not done either; both can be sent again."""
    claim = bench.start()
    good = bench.make_write(claim, Verb.LOG, {"message": "x"})
    bad = commands.Write(claim.id, attempt, 2, Verb.LOG, b"null", extra)
    command = commands.step(0, worker="w1", call=99, lease_ms=6000, writes=[good, bad])
    args = list(command.args)
    args[-3] = str(verb)
    before = bench.snapshot()
    with pytest.raises(ResponseError, match="INVALID"):
        bench.store.run(dataclasses.replace(command, args=args))
    assert bench.snapshot() == before
    assert bench.write(claim, Verb.COMPLETE) == 1


def test_retention_that_differs_is_kept_with_the_job(bench: Bench) -> None:
    """A job is removed when the time is over that was given with it, not the usual one."""
    done, failed = (bench.start(completed_kept_ms=1_000, failed_kept_ms=2_000) for _ in range(2))
    bench.complete(done)
    bench.write(failed, Verb.FAIL, {"code": "x"})
    bench.advance(999)
    bench.step()
    assert bench.counts() == {JobState.COMPLETED: 1, JobState.FAILED: 1}
    bench.advance(1)
    bench.step()
    assert bench.counts() == {JobState.FAILED: 1}
    bench.advance(1_000)
    bench.step()
    assert bench.counts() == {}
    assert bench.now_ms == START_MS + 2_000
