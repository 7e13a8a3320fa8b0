"""Gates: what keeps a queued job back without costing a try: pauses, limits, rates, concurrency keys and breakers."""

from __future__ import annotations

import pytest

from tidings.protocol import JobState
from tidings_tasks.store import (
    Claim,
    Outcome,
    QueueInfo,
    QueueLimits,
    QueueState,
    Rate,
    StepReply,
    Tenant,
    Verb,
    commands,
)

from .bench import LEASE_MS, Bench

ALICE, BOB, CAROL = Tenant("alice", "acme"), Tenant("bob", "acme"), Tenant("carol")
ERROR = {"code": "exception", "type": "ValueError", "message": "no"}


def limit(bench: Bench, queue: str = "default", **limits: object) -> None:
    """Set a queue's limits."""
    bench.run(commands.configure(0, queues={queue: QueueLimits(**limits)}))  # type: ignore[arg-type]


def take(bench: Bench, count: int = 9, queue: str = "default") -> list[Claim]:
    """Claim up to so many jobs."""
    return bench.step(wants=[(queue, count)]).claims


def finish(bench: Bench, claims: list[Claim]) -> list[Claim]:
    """Complete what was claimed, before its lease lapses."""
    bench.step([bench.make_write(claim, Verb.COMPLETE) for claim in claims])
    return claims


def queue_of(bench: Bench, queue: str = "default") -> QueueInfo:
    """Read how a queue stands."""
    [found] = bench.run(commands.read_queues(0, [queue]))
    return found


def has_token(bench: Bench, queue: str = "default") -> bool:
    """Whether a waiting worker is called."""
    return bool(bench.raw.exists(bench.key(f"wake:{queue}")))


def drop_token(bench: Bench, queue: str = "default") -> None:
    """Take the wake token, as a worker does that looks."""
    bench.raw.delete(bench.key(f"wake:{queue}"))


# Pause and drain


def test_a_paused_queue_gives_no_job_and_says_so(bench: Bench) -> None:
    """Its jobs wait, their statuses say why, and a resume calls the workers."""
    job_id = bench.add()
    bench.run(commands.set_queue_state(0, "default", QueueState.PAUSED))
    drop_token(bench)
    assert take(bench) == []
    assert not has_token(bench), "a worker would look again and again"
    record = bench.record(job_id)
    assert (record.state, record.waiting_for, record.attempt) == (JobState.QUEUED, "paused", 0)
    bench.run(commands.set_queue_state(0, "default", QueueState.ACTIVE))
    assert has_token(bench)
    assert bench.record(job_id).waiting_for is None
    assert [claim.id for claim in take(bench)] == [job_id]


def test_a_paused_queue_is_why_all_of_its_jobs_wait(bench: Bench) -> None:
    """Also those that a gate keeps back besides."""
    bench.start(concurrency_key="k")
    parked = bench.add(concurrency_key="k")
    take(bench)
    assert bench.record(parked).waiting_for == "concurrency"
    bench.run(commands.set_queue_state(0, "default", QueueState.PAUSED))
    assert bench.record(parked).waiting_for == "paused"


def test_running_jobs_of_a_paused_queue_go_on(bench: Bench) -> None:
    """Pausing stops claims, nothing else."""
    claim = bench.start()
    bench.run(commands.set_queue_state(0, "default", QueueState.PAUSED))
    assert bench.complete(claim, 1) == 1


def test_a_draining_queue_takes_no_new_jobs_and_finishes_those_it_has(bench: Bench) -> None:
    """New ones are refused with a reason of their own, whole batches too where they are all or none."""
    waiting = bench.add()
    bench.run(commands.set_queue_state(0, "default", QueueState.DRAINING))
    [refused] = bench.enqueue(bench.submission())
    assert refused.outcome is Outcome.DRAINING
    batch = bench.enqueue(bench.submission(queue="other"), bench.submission(), all_or_none=True)
    assert [entry.outcome for entry in batch] == [Outcome.REFUSED, Outcome.DRAINING]
    assert [claim.id for claim in take(bench)] == [waiting]
    assert queue_of(bench).state is QueueState.DRAINING


# How many at once, and how many in all


def test_a_queue_runs_no_more_at_once_than_it_may(bench: Bench) -> None:
    """Counted over all workers; an end calls the next."""
    limit(bench, max_running=2)
    ids = [bench.add() for _ in range(4)]
    first = bench.step(wants=[("default", 9)], worker="w1").claims
    assert [claim.id for claim in first] == ids[:2]
    drop_token(bench)
    assert bench.step(wants=[("default", 9)], worker="w2").claims == []
    assert not has_token(bench)
    assert bench.record(ids[2]).waiting_for == "concurrency"
    bench.complete(first[0])
    assert has_token(bench)
    assert [claim.id for claim in take(bench)] == [ids[2]]
    assert (queue_of(bench).running, queue_of(bench).queued) == (2, 1)


def test_a_queue_holds_no_more_than_it_may(bench: Bench) -> None:
    """Also those that are parked count."""
    limit(bench, max_length=2, rate_per_owner=Rate(1, 60))
    for _ in range(3):
        bench.add()
        take(bench, 1)
    assert [entry.outcome for entry in bench.enqueue(bench.submission())] == [Outcome.FULL]
    assert queue_of(bench).parked == 1 or queue_of(bench).queued == 2


# Rates


def test_a_queues_rate_is_a_bucket(bench: Bench) -> None:
    """A burst up to its size, then one job each time a token is there; workers are told when."""
    limit(bench, rate=Rate(2, 1.0))
    ids = [bench.add() for _ in range(4)]
    assert [claim.id for claim in take(bench)] == ids[:2]
    drop_token(bench)
    reply = bench.step(wants=[("default", 9)])
    assert (reply.claims, reply.next_due_ms) == ([], 500)
    assert not has_token(bench)
    assert bench.record(ids[2]).waiting_for == "rate_limit"
    bench.advance(499)
    assert take(bench) == []
    bench.advance(1)
    bench.step()
    assert has_token(bench)
    assert [claim.id for claim in take(bench)] == [ids[2]]
    assert bench.record(ids[2]).tries == 0


def test_a_bucket_fills_to_its_size_and_no_further(bench: Bench) -> None:
    """An idle hour saves up one burst."""
    limit(bench, rate=Rate(60, 60.0, burst=3))
    for _ in range(10):
        bench.add()
    assert len(take(bench)) == 3
    bench.advance(3_600_000)
    assert len(take(bench)) == 3


def test_an_owner_over_the_rate_waits_and_others_do_not(bench: Bench) -> None:
    """The jobs that wait for a token keep their order, and come back one a token."""
    limit(bench, rate_per_owner=Rate(2, 60.0))
    mine = [bench.add(ALICE) for _ in range(5)]
    bobs = bench.add(BOB)
    assert {claim.id for claim in finish(bench, take(bench))} == {mine[0], mine[1], bobs}
    assert bench.record(mine[2]).waiting_for == "rate_limit"
    assert bench.record(mine[2]).queue_place is None
    assert queue_of(bench).parked == 3
    claimed = []
    for _ in range(3):
        bench.advance(30_000)
        claimed += [claim.id for claim in finish(bench, take(bench))]
    assert claimed == mine[2:]
    assert {bench.record(job_id).tries for job_id in mine} == {0}


def test_an_org_shares_its_rate(bench: Bench) -> None:
    """Whoever of its members submits; somebody of no org is not of it."""
    limit(bench, rate_per_org=Rate(2, 60.0))
    acmes = [bench.add(tenant) for tenant in (ALICE, BOB, ALICE, BOB)]
    carols = [bench.add(CAROL) for _ in range(3)]
    claimed = {claim.id for claim in take(bench)}
    assert claimed == {*carols, *acmes[:2]}


def test_a_job_held_back_by_its_org_takes_no_token_of_its_owner(bench: Bench) -> None:
    """Tokens are taken when all gates are open."""
    limit(bench, rate_per_org=Rate(1, 60.0), rate_per_owner=Rate(2, 60.0))
    bench.add(BOB)
    finish(bench, take(bench))
    mine = bench.add(ALICE)
    assert take(bench) == []
    bench.advance(60_000)
    assert [claim.id for claim in take(bench)] == [mine]


def test_a_limit_that_is_lifted_lets_jobs_go(bench: Bench) -> None:
    """At once, not when its old time is over."""
    limit(bench, rate_per_owner=Rate(1, 3600.0))
    ids = [bench.add() for _ in range(3)]
    assert len(take(bench)) == 1
    limit(bench)
    bench.step()
    assert [claim.id for claim in take(bench)] == ids[1:]


def test_a_rate_that_is_configured_again_keeps_its_bucket(bench: Bench) -> None:
    """Each worker that starts says the same; that must not give tokens away."""
    limit(bench, rate=Rate(1, 60.0))
    bench.add()
    bench.add()
    assert len(take(bench)) == 1
    limit(bench, rate=Rate(1, 60.0))
    assert take(bench) == []


def test_a_faster_rate_holds_at_once(bench: Bench) -> None:
    """A bucket is never less than empty: what the slow rate would have cost is forgotten."""
    limit(bench, rate=Rate(1, 3600.0))
    bench.add()
    waiting = bench.add()
    finish(bench, take(bench))
    limit(bench, rate=Rate(1, 10.0))
    assert take(bench) == []
    bench.advance(10_000)
    assert [claim.id for claim in take(bench)] == [waiting]


# Concurrency keys


def test_of_one_key_so_many_run_at_once(bench: Bench) -> None:
    """The next one goes when one ends, however it ends, and in order."""
    ids = [bench.add(concurrency_key="k", concurrency_limit=2) for _ in range(5)]
    other = bench.add(concurrency_key="l")
    claims = take(bench)
    assert {claim.id for claim in claims} == {*ids[:2], other}
    assert bench.record(ids[2]).waiting_for == "concurrency"
    bench.complete(claims[0])
    assert [claim.id for claim in take(bench)] == [ids[2]]
    bench.write(claims[1], Verb.RETRY, ERROR, {"delay_ms": 60_000})
    assert [claim.id for claim in take(bench)] == [ids[3]]


def test_jobs_of_one_key_run_in_the_order_in_which_they_came(bench: Bench) -> None:
    """Also when the line stood empty in between, since all that waited were parked."""
    first = bench.add(concurrency_key="k")
    running = bench.claim()
    assert running.id == first
    waiting = [bench.add(concurrency_key="k") for _ in range(2)]
    assert bench.step(wants=[("default", 10)]).claims == []
    waiting.append(bench.add(concurrency_key="k"))
    assert bench.step(wants=[("default", 10)]).claims == []
    waiting.append(bench.add(concurrency_key="k"))
    order = []
    for _ in waiting:
        bench.complete(running)
        running = bench.claim()
        order.append(running.id)
    assert order == waiting


def test_a_key_is_the_tenants(bench: Bench) -> None:
    """An org's members share it; others have one of their own."""
    alices = bench.add(ALICE, concurrency_key="k")
    bobs = bench.add(BOB, concurrency_key="k")
    carols = bench.add(CAROL, concurrency_key="k")
    assert {claim.id for claim in take(bench)} == {alices, carols}
    assert bench.record(bobs).waiting_for == "concurrency"


def test_a_key_is_freed_when_its_holder_is_lost(bench: Bench) -> None:
    """The lost job goes first, since it comes back before those that were parked."""
    ids = [bench.add(concurrency_key="k") for _ in range(2)]
    take(bench)
    bench.advance(LEASE_MS)
    bench.step()
    assert len(take(bench)) == 1
    assert [bench.state(job_id) for job_id in ids] == [JobState.RUNNING, JobState.QUEUED]


@pytest.mark.parametrize("how", ["cancel", "expire", "put off"])
def test_a_job_that_gives_up_its_turn_at_a_key_lets_the_next_pass(bench: Bench, how: str) -> None:
    """It was called when the key became free, and leaves the line before it is claimed."""
    ids = [bench.add(concurrency_key="k", expires="+1000" if n == 1 else "") for n in range(3)]
    [holder] = take(bench)
    bench.complete(holder)
    if how == "cancel":
        bench.cancel(ids[1])
    elif how == "expire":
        bench.advance(1000)
        bench.step()
    else:
        bench.run(commands.change(ids[1], due_ms=bench.now_ms + 5000))
    assert [claim.id for claim in take(bench)] == [ids[2]]


@pytest.mark.parametrize("elsewhere", ["in a paused queue", "before another gate"])
def test_a_job_that_cannot_use_its_turn_at_a_key_keeps_nobody_from_it(bench: Bench, elsewhere: str) -> None:
    """The key is free and the first one waits for something else: a second later the next one looks."""
    limit(bench, rate_per_owner=Rate(1, 3600.0))
    holder = bench.start(ALICE, concurrency_key="k")
    queue = "slow" if elsewhere == "in a paused queue" else "default"
    first = bench.add(ALICE, concurrency_key="k", queue=queue)
    second = bench.add(BOB, concurrency_key="k")
    wants = [("slow", 9), ("default", 9)]
    assert bench.step(wants=wants).claims == []
    bench.run(commands.set_queue_state(0, "slow", QueueState.PAUSED))
    bench.complete(holder)
    assert bench.step(wants=wants).claims == []
    bench.advance(1_000)
    assert [claim.id for claim in bench.step(wants=wants).claims] == [second]
    assert bench.state(first) is JobState.QUEUED


def test_a_parked_job_can_be_cancelled(bench: Bench) -> None:
    """It leaves nothing behind."""
    ids = [bench.add(concurrency_key="k") for _ in range(3)]
    [holder] = take(bench)
    assert bench.cancel(ids[1]) == ("cancelled", JobState.CANCELLED)
    bench.complete(holder)
    assert [claim.id for claim in take(bench)] == [ids[2]]


def test_many_jobs_before_closed_gates_do_not_hide_one_that_may_run(bench: Bench) -> None:
    """They are parked on the way, a bounded number a step, and the worker is called to look on."""
    bench.checks = False
    limit(bench, rate_per_owner=Rate(1, 3600.0))
    bench.enqueue(*[bench.submission(ALICE) for _ in range(900)])
    bobs = bench.add(BOB, priority=4)
    found: list[str] = []
    looks: list[StepReply] = []
    while bobs not in found:
        looks.append(bench.step(wants=[("default", 5)]))
        found += [claim.id for claim in looks[-1].claims]
        assert bobs in found or has_token(bench)
    assert len(looks) <= 6
    bench.checks = True
    bench.step()


def test_queues_are_found_by_their_jobs_and_their_states(bench: Bench) -> None:
    """Also those that nobody declared; an empty one that is paused is not forgotten."""
    bench.start(queue="running")
    bench.add(queue="waiting")
    bench.complete(bench.start(queue="over"))
    bench.run(commands.set_queue_state(0, "paused", QueueState.PAUSED))
    assert bench.run(commands.list_queues(0)) == ["paused", "running", "waiting"]
