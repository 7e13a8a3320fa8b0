"""Taking jobs: order, bounds, wake tokens, and claims whose answer was lost."""

from __future__ import annotations

from typing import Any

import pytest

from tidings.protocol import JobState
from tidings_tasks.store import Verb, commands

from .bench import LEASE_MS, START_MS, Bench


def tokens(bench: Bench, queue: str = "default") -> int:
    """Count the wake tokens of a queue."""
    found: Any = bench.raw.llen(bench.keyspace.wake_list(0, queue))
    return int(found)


def take_token(bench: Bench, queue: str = "default") -> None:
    """Take the wake token as a waiting worker does."""
    assert bench.store.wait([bench.keyspace.wake_list(0, queue)], 1) is not None


def test_a_queue_is_first_in_first_out(bench: Bench) -> None:
    """Also over several claims, and across calls that stored them."""
    ids = [bench.add() for _ in range(3)]
    bench.enqueue(*(more := [bench.submission() for _ in range(3)]))
    ids += [job.id for job in more]
    first = bench.step(wants=[("default", 2)]).claims
    rest = bench.step(wants=[("default", 10)]).claims
    assert [claim.id for claim in first + rest] == ids


def test_priority_goes_before_age(bench: Bench) -> None:
    """1 is first and 9 is last; within one priority the older job is first."""
    jobs = [(priority, bench.add(priority=priority)) for priority in (9, 3, 1, 3, 1, 9)]
    claims = bench.step(wants=[("default", 10)]).claims
    assert [claim.id for claim in claims] == [job_id for _, job_id in sorted(jobs, key=lambda job: job[0])]


def test_a_job_that_is_handed_back_goes_to_the_front_of_its_priority(bench: Bench) -> None:
    """It has waited already; but it does not overtake a higher priority."""
    back = bench.start()
    waiting = bench.add()
    high = bench.add(priority=2)
    bench.write(back, Verb.RELEASE)
    assert [claim.id for claim in bench.step(wants=[("default", 5)]).claims] == [high, back.id, waiting]


def test_a_job_whose_worker_was_lost_goes_to_the_front_of_its_priority(bench: Bench) -> None:
    """It is to run again at once, however long the line is."""
    lost = bench.start()
    waiting = bench.add()
    bench.lose_worker()
    assert [claim.id for claim in bench.step(wants=[("default", 5)]).claims] == [lost.id, waiting]


def test_due_jobs_enter_the_queue_in_the_order_in_which_they_fall_due(bench: Bench) -> None:
    """Not in the order in which they were stored; a step that comes late keeps the order too."""
    late = bench.add(due="+3000")
    early = bench.add(due="+1000")
    retried = bench.start()
    bench.write(retried, Verb.RETRY, {"code": "x"}, {"delay_ms": 2000})
    bench.advance(10_000)
    assert [claim.id for claim in bench.step(wants=[("default", 5)]).claims] == [early, retried.id, late]


def test_more_due_jobs_than_one_step_takes_are_taken_by_the_next(bench: Bench) -> None:
    """Upkeep is bounded, says that more is due at once, and loses nothing."""
    bench.enqueue(*[bench.submission(due="+1000") for _ in range(120)])
    bench.advance(1000)
    bench.checks = False
    steps = 0
    while bench.counts().get(JobState.SCHEDULED):
        reply = bench.step()
        steps += 1
        assert reply.next_due_ms == (0 if bench.counts().get(JobState.SCHEDULED) else None)
    assert 1 < steps <= 120
    assert bench.counts() == {JobState.QUEUED: 120}


def test_queues_are_served_in_the_order_the_worker_prefers(bench: Bench) -> None:
    """Each up to its own bound, all together up to the worker's room."""
    ids = {(queue, n): bench.add(queue=queue) for queue in "abc" for n in range(3)}
    command = commands.step(
        0, worker="w1", call=77, lease_ms=LEASE_MS, wants=[("b", 2), ("a", 3), ("c", 3)], most=4
    )
    assert [claim.id for claim in bench.run(command).claims] == [
        ids["b", 0],
        ids["b", 1],
        ids["a", 0],
        ids["a", 1],
    ]


def test_a_queue_named_twice_is_claimed_from_twice(bench: Bench) -> None:
    """What the first turn took is not there for the second."""
    ids = [bench.add() for _ in range(3)]
    claims = bench.step(wants=[("default", 1), ("default", 1)]).claims
    assert [claim.id for claim in claims] == ids[:2]


def test_one_step_can_take_thousands(bench: Bench) -> None:
    """More than a script can pass to one command: nothing is lost, all have a lease."""
    bench.checks = False
    for _ in range(5):
        bench.enqueue(*[bench.submission() for _ in range(1_000)])
    command = commands.step(
        0, worker="w1", call=77, lease_ms=LEASE_MS, wants=[("default", 5_000)], most=5_000
    )
    assert len(bench.run(command).claims) == 5_000
    assert bench.counts() == {JobState.RUNNING: 5_000}
    assert bench.raw.zcard(bench.key("lease")) == 5_000


def test_a_waiting_job_has_one_wake_token(bench: Bench) -> None:
    """However many jobs come, one worker is woken, and takes as many as it can."""
    bench.add()
    bench.enqueue(bench.submission(), bench.submission())
    assert tokens(bench) == 1


def test_who_leaves_jobs_wakes_the_next(bench: Bench) -> None:
    """The token that a worker took is given back when there is more than it took, and only then."""
    bench.add()
    bench.add()
    take_token(bench)
    bench.step(wants=[("default", 1)])
    assert tokens(bench) == 1
    take_token(bench)
    bench.step(wants=[("default", 1)])
    assert tokens(bench) == 0


def test_a_full_worker_gives_its_token_back(bench: Bench) -> None:
    """Naming the queue is enough, also when it wants nothing of it."""
    bench.add()
    take_token(bench)
    bench.step(wants=[("default", 0)])
    assert tokens(bench) == 1


@pytest.mark.parametrize("waits", ["scheduled", "retrying", "lost", "released"])
def test_a_job_that_is_queued_again_wakes_a_worker(bench: Bench, waits: str) -> None:
    """Whatever brings a job back to its queue."""
    if waits == "scheduled":
        bench.add(due="+1000")
    else:
        claim = bench.start()
    bench.raw.delete(bench.keyspace.wake_list(0, "default"))
    if waits == "retrying":
        bench.write(claim, Verb.RETRY, {"code": "x"}, {"delay_ms": 1000})
    elif waits == "released":
        bench.write(claim, Verb.RELEASE)
    if waits in ("scheduled", "retrying"):
        assert tokens(bench) == 0
        bench.advance(1000)
        bench.step()
    if waits == "lost":
        bench.lose_worker()
    assert tokens(bench) == 1


def test_a_scheduled_job_wakes_a_worker_to_learn_when_it_is_due(bench: Bench) -> None:
    """The step that follows says how long there is to wait."""
    bench.add(due="+1000")
    assert tokens(bench) == 1
    assert bench.step(wants=[("default", 1)]).next_due_ms == 1000


def test_a_step_says_when_something_falls_due(bench: Bench) -> None:
    """The nearest of due jobs and leases; None when there is neither."""
    assert bench.step().next_due_ms is None
    bench.add(due="+10000")
    assert bench.step().next_due_ms == 10_000
    bench.start(queue="other")
    reply = bench.step()
    assert (reply.now_ms, reply.next_due_ms) == (START_MS, LEASE_MS)


def test_a_repeated_claim_is_answered_with_the_same_jobs(bench: Bench) -> None:
    """A worker that never heard what it got asks again under the same number, also after others have claimed."""
    first = bench.add()
    second = bench.add()
    mine = bench.step(wants=[("default", 1)], call=500)
    other = bench.step(wants=[("default", 1)], call=500, worker="w2")
    again = bench.step(wants=[("default", 1)], call=500)
    assert [claim.id for claim in mine.claims] == [first]
    assert [claim.id for claim in other.claims] == [second]
    assert again.claims == mine.claims


def test_eight_calls_may_be_on_their_way(bench: Bench) -> None:
    """Overlapping calls of one worker have an answer each, in whatever order they are repeated."""
    for _ in range(16):
        bench.add()
    made = {call: bench.step(wants=[("default", 2)], call=call).claims for call in range(40, 48)}
    for call in (43, 40, 47, 41):
        assert bench.step(wants=[("default", 2)], call=call).claims == made[call]
    assert bench.counts() == {JobState.RUNNING: 16}


def test_a_repeated_claim_leaves_out_what_was_lost_meanwhile(bench: Bench) -> None:
    """A job whose lease has lapsed is not handed out again under its old attempt."""
    bench.add()
    lost, kept = bench.step(wants=[("default", 1)], call=500).claims, bench.start()
    bench.advance(LEASE_MS - 1)
    bench.run(commands.renew(0, [(kept.id, 1)], lease_ms=LEASE_MS))
    bench.advance(1)
    again = bench.step(wants=[("default", 1)], call=500).claims
    assert lost
    assert again == []
    assert bench.step(wants=[("default", 1)], call=501).claims[0].attempt == 2


def test_a_step_that_claimed_nothing_may_claim_when_it_is_repeated(bench: Bench) -> None:
    """Its first answer, lost, promised nothing."""
    assert bench.step(wants=[("default", 1)], call=500).claims == []
    job_id = bench.add()
    assert [claim.id for claim in bench.step(wants=[("default", 1)], call=500).claims] == [job_id]


def test_a_step_writes_before_it_claims(bench: Bench) -> None:
    """A worker with one place finishes a job and takes the next in one call."""
    claim = bench.start()
    following = bench.add()
    reply = bench.step([bench.make_write(claim, Verb.COMPLETE)], [("default", 1)])
    assert (reply.codes, [c.id for c in reply.claims]) == ([1], [following])


def test_a_released_job_can_be_claimed_in_the_same_step(bench: Bench) -> None:
    """And the repeat of that step neither releases nor claims again."""
    claim = bench.start()
    reply = bench.step([bench.make_write(claim, Verb.RELEASE)], [("default", 1)])
    assert [(c.id, c.attempt) for c in reply.claims] == [(claim.id, 2)]
    assert bench.kinds(claim.id) == ["queued", "started", "queued", "started"]
