"""Reading many jobs in one call: those that are named, and an owner's open ones."""

from __future__ import annotations

import pytest

from tidings.protocol import JobState, new_job_id
from tidings_tasks.store import Tenant, commands
from tidings_tasks.store.bulk_commands import list_open, read_jobs

from .bench import ALICE, Bench


def test_jobs_are_read_in_the_order_of_their_ids(bench: Bench) -> None:
    """One that is not there is None, one that is named twice comes twice."""
    ids = [bench.add(), bench.start(queue="other").id, bench.add(due="+1000")]
    wanted = [ids[2], new_job_id(0), ids[0], ids[1], ids[0]]
    found = bench.run(read_jobs(0, wanted))
    assert [job and job.id for job in found] == [ids[2], None, ids[0], ids[1], ids[0]]
    assert found == [None if at == 1 else bench.record(job_id) for at, job_id in enumerate(wanted)]
    assert bench.run(read_jobs(0, [])) == []


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_an_owners_open_jobs_are_paged_newest_first(bench: Bench, size: int) -> None:
    """Ended ones and other owners' are left out; jobs that end between two pages disturb nothing."""
    waiting = [bench.add(), bench.add(due="+1000"), bench.add(queue="other")]
    running = bench.start(queue="third")
    bench.complete(bench.start(queue="fourth"))
    for other in (Tenant("alice"), Tenant("bob", "acme"), Tenant("acme", "alice")):
        bench.add(other)
    found: list[str] = []
    while page := bench.run(list_open(0, ALICE, after_id=found[-1] if found else "", limit=size)):
        assert len(page) <= size
        assert all(not job.state.is_terminal for job in page)
        found += [job.id for job in page]
        for job in page:
            bench.cancel(job.id)
    assert found == [running.id, *reversed(waiting)]
    assert [job.state for job in bench.run(list_open(0, ALICE))] == [JobState.RUNNING]


def test_a_deleted_job_is_not_listed(bench: Bench) -> None:
    """As everywhere."""
    job_id = bench.add()
    bench.cancel(job_id)
    bench.run(commands.delete(job_id))
    assert bench.run(list_open(0, ALICE)) == []
    assert bench.run(read_jobs(0, [job_id])) == [None]
