"""Schedules at work: catching up, overlapping with what runs, pausing, and leaving to others what is theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from tests.integration.running import open_jobs, running_worker
from tests.integration.scheduling import HOUR_MS, SYSTEM, Desk, look_to_the_end, make
from tests.support.timing import eventually
from tidings.protocol import JobState
from tidings.protocol.errors import ScheduleMissing
from tidings_tasks import JobContext, job
from tidings_tasks.flows.planning import register_flow
from tidings_tasks.registry import Registry
from tidings_tasks.schedules.book import API
from tidings_tasks.store import JobRecord, Keyspace, schedule_commands


@pytest.fixture
async def desk(valkey_url: str, keyspace: Keyspace) -> AsyncIterator[Desk]:
    """Give a store without a worker."""
    async with open_jobs(valkey_url, keyspace, Registry()) as jobs:
        yield Desk(jobs)


@pytest.mark.parametrize(
    ("fields", "runs", "missed"),
    [
        ({"catch_up": "none"}, 0, 4),
        ({"catch_up": "none", "on_time_s": 3600}, 1, 3),
        ({"catch_up": "last"}, 1, 3),
        ({"catch_up": "all", "overlap": "queue"}, 4, 0),
        ({"catch_up": "all", "overlap": "queue", "catch_up_limit": 3}, 3, 1),
    ],
)
async def test_after_a_gap_it_catches_up_as_it_is_told(
    desk: Desk, fields: dict[str, Any], runs: int, missed: int
) -> None:
    """An hourly schedule that nobody looked at for three hours and more: four due times."""
    # Between an hour's beginning and its end the oldest is always 3 to 4 hours old.
    await desk.put_overdue(3 * HOUR_MS, every_s=3600, **fields)
    is_late = (await desk.now_ms()) % HOUR_MS > 60_000
    if not is_late and fields == {"catch_up": "none"}:
        runs, missed = 1, 3  # the hour has just begun, so its run is in time
    await look_to_the_end(desk.scheduler())
    found = await desk.runs()
    record = await desk.record()
    assert (len(found), record.runs, record.missed) == (runs, runs, missed)
    now_ms = await desk.now_ms()
    assert record.next_ms == now_ms // HOUR_MS * HOUR_MS + HOUR_MS
    assert record.last_due_ms == now_ms // HOUR_MS * HOUR_MS


async def test_a_long_gap_is_caught_up_in_several_calls(desk: Desk) -> None:
    """In order, each due time once."""
    await desk.put_overdue(99 * HOUR_MS, every_s=3600, catch_up="all", overlap="queue")
    await look_to_the_end(desk.scheduler())
    found = await desk.runs()
    assert len(found) == 100
    assert len(desk.fired) == 2
    assert len({str(record.spec.metadata) for record in found}) == 100


async def test_schedulers_that_look_at_once_run_a_due_time_once(desk: Desk) -> None:
    """However many there are."""
    await desk.put_overdue(0, every_s=3600)
    schedulers = [desk.scheduler() for _ in range(5)]
    await asyncio.gather(*(scheduler.look(0) for scheduler in schedulers))
    assert len(await desk.runs()) == 1
    assert (await desk.record()).runs == 1


async def test_a_job_knows_its_schedule_and_due_time(desk: Desk) -> None:
    """In its metadata; it belongs to the schedule's owner, and has the schedule's place, tags and expiry."""
    await desk.put_overdue(
        0, every_s=3600, queue="reports", priority=2, tags=["night"], expires_s=60, jitter_s=7200
    )
    await desk.scheduler().look(0)
    [found] = await desk.runs()
    hour = (await desk.now_ms()) // HOUR_MS * HOUR_MS
    assert found.spec.metadata == {"schedule": "nightly", "due": found.spec.metadata["due"]}
    assert (found.queue, found.priority, found.spec.tags) == ("reports", 2, ("night",))
    assert found.tenant == SYSTEM
    assert found.due_ms is None or hour <= found.due_ms <= hour + 2 * HOUR_MS


@pytest.fixture
async def worked(desk: Desk, valkey_url: str, keyspace: Keyspace, tmp_path: Path) -> AsyncIterator[Desk]:
    """Give a store with a worker, which runs a scheduler of its own."""
    async with running_worker(valkey_url, keyspace, desk.registry, tmp_path):
        yield desk
        desk.release.set()


async def test_skip_runs_nothing_beside_a_running_job(worked: Desk) -> None:
    """Skips are counted; when the job has ended the next one is run."""
    await worked.book.create(make())
    await eventually(lambda: worked.begun)

    async def skips() -> bool:
        return (await worked.record("often")).skipped >= 3

    await eventually(skips)
    record = await worked.record("often")
    assert (record.skipped_why, record.skipped_for, record.runs) == ("overlap", record.last_job_id, 1)
    assert len(worked.begun) == 1
    worked.release.set()
    await eventually(lambda: len(worked.begun) >= 2)


async def test_queue_runs_one_after_the_other(worked: Desk) -> None:
    """In the order of their due times, and never two at once."""
    await worked.book.create(make(overlap="queue", catch_up="all"))

    async def waiting() -> bool:
        return (await worked.record("often")).runs >= 4

    await eventually(lambda: worked.begun)
    await eventually(waiting)
    assert len(worked.begun) == 1
    await worked.book.pause("often")
    worked.release.set()
    runs = (await worked.record("often")).runs
    await eventually(lambda: len(worked.ended) == runs)
    assert worked.ended == [(due, "done") for due in sorted(worked.begun)]


async def test_replace_ends_the_running_job(worked: Desk) -> None:
    """The new one begins when the old one has ended, and the old one is cancelled by the schedule."""
    await worked.book.create(make(overlap="replace", every_s=0.5))
    await eventually(lambda: len(worked.begun) >= 2)
    assert worked.ended[0] == (worked.begun[0], "cancelled")
    first = (await worked.runs())[0]
    assert first.state is JobState.CANCELLED
    [event] = await worked.jobs.events(first.id, "cancelled")
    assert event["data"] == {"by": "schedule", "reason": "replaced by the next run of schedule often"}


async def test_a_schedule_runs_flows(worked: Desk) -> None:
    """One after the other, each whole."""
    register_flow(worked.registry)
    worked.release.set()
    step = {"type": "test.hold", "input": {"rows": 1}, "metadata": {"due": "then"}}
    await worked.book.create(
        make(type="flow", input={"chain": [step, step]}, every_s=0.5, overlap="queue", catch_up="all")
    )

    async def completed() -> list[JobRecord]:
        flows = [run for run in await worked.runs() if run.spec.type == "flow"]
        return [flow for flow in flows if flow.state is JobState.COMPLETED]

    async def are_two() -> bool:
        return len(await completed()) >= 2

    await eventually(are_two)
    first, second = (await completed())[:2]
    assert first.finished_ms is not None
    assert second.started_ms is not None
    assert second.started_ms >= first.finished_ms


async def test_what_is_due_while_it_is_paused_is_passed_over(desk: Desk) -> None:
    """Nothing is fired; afterwards it goes on with the next due time, without catching up."""
    await desk.put_overdue(3 * HOUR_MS, every_s=3600, catch_up="all", overlap="queue")
    await desk.book.pause("nightly")
    await desk.scheduler().look(0)
    assert await desk.runs() == []
    await desk.book.resume("nightly")
    await desk.scheduler().look(0)
    record = await desk.record()
    assert (await desk.runs(), record.missed, record.is_paused) == ([], 0, False)
    assert record.next_ms == (await desk.now_ms()) // HOUR_MS * HOUR_MS + HOUR_MS


async def test_run_now_makes_one_more_job(desk: Desk) -> None:
    """Also of a schedule that is paused."""
    await desk.book.create(make(every_s=3600))
    await desk.book.pause("often")
    job_id = await desk.book.run("often")
    assert (await desk.jobs.read(job_id)).state is JobState.QUEUED
    assert (await desk.record("often")).last_job_id == job_id
    with pytest.raises(ScheduleMissing):
        await desk.book.run("none")


async def test_an_input_that_is_valid_no_more_is_told_and_nothing_is_stored(desk: Desk) -> None:
    """The schedule goes on: what is wrong may be mended before it is due again."""
    await desk.put_overdue(HOUR_MS, every_s=3600, input={"rows": 0})
    await desk.scheduler().look(0)
    record = await desk.record()
    assert await desk.runs() == []
    assert (record.skipped, record.missed, record.runs) == (1, 1, 0)
    assert "input.rows" in (record.skipped_why or "")


async def test_a_process_without_the_type_leaves_it_to_others(desk: Desk) -> None:
    """It stays due, and whoever has the type fires it."""
    await desk.put_overdue(0, every_s=3600)
    stranger = desk.scheduler(registry=Registry())
    assert await stranger.look(0) >= 0.1, "it does not look again and again"
    assert await desk.runs() == []
    await desk.scheduler().look(0)
    assert len(await desk.runs()) == 1


async def test_a_process_whose_type_is_older_leaves_it_to_others(desk: Desk) -> None:
    """As in a rolling upgrade: an input that it does not accept may be valid to another, for a while."""
    older = Registry()

    class Less(BaseModel):
        rows: int = Field(le=0)

    @job("test.hold", registry=older)
    async def hold(ctx: JobContext, input: Less) -> None:
        """Not run here."""

    await desk.put_overdue(0, every_s=1)
    await desk.scheduler(registry=older).look(0)
    assert (await desk.record()).skipped == 0
    await desk.scheduler().look(0)
    assert (await desk.record()).runs == 1


async def test_what_another_version_wrote_is_left_to_it(desk: Desk) -> None:
    """As in a rolling upgrade: what this one cannot read stays, and does not keep others back."""
    await desk.put_overdue(0, name="known", every_s=3600)
    await desk.jobs.store.run(
        schedule_commands.put_schedule(
            0, "future", version="v", definition=b'{"name":"future","moon":"full"}', origin=API, timing="t", next_ms=1
        )
    )  # fmt: skip
    await desk.scheduler().look(0)
    assert (await desk.record("known")).runs == 1
    assert [entry.schedule.name for entry in await desk.book.page()] == ["known"]
    with pytest.raises(ScheduleMissing):
        await desk.book.get("future")
