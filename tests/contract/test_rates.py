"""Rates that are changed while jobs wait for them."""

from __future__ import annotations

from tidings_tasks.store import QueueLimits, Rate, Tenant, commands

from .bench import Bench


def limit(bench: Bench, **limits: Rate) -> None:
    """Set the limits of the queue."""
    bench.run(commands.configure(0, queues={"default": QueueLimits(**limits)}))


def test_a_higher_rate_holds_at_once(bench: Bench) -> None:
    """What a bucket owes from the time of a low rate is not waited for."""
    limit(bench, rate=Rate(1, 86_400))
    first, second = bench.add(), bench.add()
    assert bench.claim().id == first
    assert bench.step(wants=[("default", 1)]).claims == []
    limit(bench, rate=Rate(10, 1))
    assert bench.step(wants=[("default", 1)]).claims == [], "the bucket is as empty as it was"
    bench.advance(100)
    assert bench.claim().id == second


def test_a_limit_that_is_lifted_lets_jobs_of_any_number_of_owners_go(bench: Bench) -> None:
    """More owners than one page of gates: none of them waits for the time that the old limit set."""
    bench.checks = False
    limit(bench, rate_per_owner=Rate(1, 86_400))
    owners = 1_100
    submissions = [bench.submission(Tenant(f"owner-{n}")) for n in range(owners) for _ in range(2)]
    bench.enqueue(*submissions)
    for _ in range(20):
        bench.step(wants=[("default", 1_000)])
    limit(bench)
    claimed = 0
    for _ in range(3 * owners):
        claimed += len(bench.step(wants=[("default", 1_000)]).claims)
        bench.advance(1)
        if claimed == owners:
            break
    assert claimed == owners
