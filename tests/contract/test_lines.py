"""Fair lines: owners of a queue take turns within a priority, whoever has how many jobs there."""

from __future__ import annotations

import pytest

from tidings_tasks.store import Tenant, Verb

from .bench import Bench

ALICE, BOB, CAROL = Tenant("alice", "acme"), Tenant("bob", "acme"), Tenant("carol")


def claim_owners(bench: Bench, count: int, queue: str = "default") -> list[str]:
    """Take so many jobs one by one; returns whose they were."""
    return [bench.claim(queue).spec.owner for _ in range(count)]


def add_many(bench: Bench, tenant: Tenant, count: int, **options: object) -> list[str]:
    """Store many jobs of an owner in one call."""
    made = [bench.submission(tenant, **options) for _ in range(count)]  # type: ignore[arg-type]
    bench.enqueue(*made)
    return [job.id for job in made]


def test_ten_thousand_jobs_of_one_owner_do_not_delay_the_first_of_another(bench: Bench) -> None:
    """The newcomer is at most one job away from being served."""
    bench.checks = False
    for _ in range(10):
        add_many(bench, ALICE, 1_000)
    claim_owners(bench, 3)
    add_many(bench, BOB, 2)
    assert "bob" in claim_owners(bench, 2)


def test_owners_take_turns(bench: Bench) -> None:
    """One job each, in the order in which their first ones came, until an owner has none left."""
    add_many(bench, ALICE, 4)
    add_many(bench, BOB, 2)
    add_many(bench, CAROL, 1)
    expected = ["alice", "bob", "carol", "alice", "bob", "alice", "alice"]
    assert claim_owners(bench, 7) == expected


def test_one_claim_of_many_takes_turns_too(bench: Bench) -> None:
    """The order is the line's, not the claim's."""
    add_many(bench, ALICE, 3)
    add_many(bench, BOB, 3)
    owners = [claim.spec.owner for claim in bench.step(wants=[("default", 4)]).claims]
    assert owners == ["alice", "bob", "alice", "bob"]


def test_an_owners_own_jobs_go_in_order(bench: Bench) -> None:
    """Turns never swap two jobs of one owner."""
    mine = add_many(bench, ALICE, 3)
    add_many(bench, BOB, 5)
    mine += add_many(bench, ALICE, 3)
    claimed = [bench.claim().id for _ in range(11)]
    assert [job_id for job_id in claimed if job_id in mine] == mine


def test_a_priority_goes_before_all_turns(bench: Bench) -> None:
    """Owners take turns within a priority alone."""
    add_many(bench, ALICE, 2, priority=4)
    add_many(bench, BOB, 3, priority=2)
    assert claim_owners(bench, 5) == ["bob"] * 3 + ["alice"] * 2


def test_queues_have_lines_of_their_own(bench: Bench) -> None:
    """Who has many jobs in one queue is not behind in another."""
    add_many(bench, ALICE, 5, queue="a")
    add_many(bench, BOB, 2, queue="b")
    add_many(bench, ALICE, 1, queue="b")
    assert claim_owners(bench, 2, "b") == ["bob", "alice"]


def test_whoever_was_away_saves_nothing_up(bench: Bench) -> None:
    """An owner who comes late goes on at the line's turn, and does not get all turns that were missed."""
    add_many(bench, ALICE, 6)
    claim_owners(bench, 4)
    add_many(bench, BOB, 3)
    assert sorted(claim_owners(bench, 2)) == ["alice", "bob"]


@pytest.mark.parametrize("newest_first", [True, False])
def test_cancelled_jobs_keep_nobody_back(bench: Bench, newest_first: bool) -> None:
    """An owner who cancelled a hundred jobs is served like one who never had them."""
    bench.checks = False
    mine = add_many(bench, ALICE, 100)
    add_many(bench, BOB, 10)
    for job_id in reversed(mine) if newest_first else mine:
        bench.cancel(job_id)
    bench.checks = True
    again = bench.add(ALICE)
    assert again in [bench.claim().id for _ in range(2)]


def test_cancelled_jobs_at_the_end_give_their_turns_back(bench: Bench) -> None:
    """Also while the owner has others waiting."""
    mine = add_many(bench, ALICE, 10)
    add_many(bench, BOB, 10)
    for job_id in reversed(mine[1:]):
        bench.cancel(job_id)
    again = bench.add(ALICE)
    assert again in [bench.claim().id for _ in range(4)]


def test_what_is_handed_back_runs_next(bench: Bench) -> None:
    """Before all turns of its priority: it had one already."""
    first = bench.start(ALICE)
    add_many(bench, BOB, 3)
    add_many(bench, ALICE, 1)
    bench.write(first, Verb.RELEASE)
    assert bench.claim().id == first.id


def test_an_empty_line_leaves_nothing_behind(bench: Bench) -> None:
    """Turns are forgotten with the last job."""
    add_many(bench, ALICE, 3)
    add_many(bench, BOB, 3, priority=5)
    for claim in bench.step(wants=[("default", 10)]).claims:
        bench.complete(claim)
    assert not [key for key in bench.snapshot() if key.startswith(":v:")]
