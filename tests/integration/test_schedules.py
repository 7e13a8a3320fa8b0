"""Schedules at work: catching up, overlapping with what runs, pausing, and what the settings declare."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from tests.integration.running import Jobs, open_jobs, running_worker
from tests.support.timing import eventually
from tidings.protocol import JobState
from tidings.protocol.errors import InvalidInput, ScheduleConflict, ScheduleMissing, UnknownJobType
from tidings_tasks import JobCancelled, JobContext, job
from tidings_tasks.queue.queues import BUILT_IN_POLICIES
from tidings_tasks.registry import Registry
from tidings_tasks.schedules import Schedule
from tidings_tasks.schedules.book import API, SETTINGS, ScheduleBook
from tidings_tasks.schedules.scheduler import Scheduler
from tidings_tasks.settings import Settings, SettingsError
from tidings_tasks.store import JobRecord, Keyspace, Tenant, commands, schedule_commands
from tidings_tasks.store.schedule_commands import Fired, ScheduleRecord

HOUR_MS = 3_600_000
SYSTEM = Tenant("system")


class Rows(BaseModel):
    rows: int = Field(ge=1)
    note: str = ""


class Desk:
    """A job type whose runs the test holds back, and the store with a book and schedulers over it."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.registry = jobs.registry
        self.release = asyncio.Event()
        self.begun: list[str] = []
        self.ended: list[tuple[str, str]] = []
        self.book = ScheduleBook(jobs.store, self.registry, BUILT_IN_POLICIES)
        self.fired: list[tuple[str, int, Fired]] = []

        @job("test.hold", registry=self.registry)
        async def hold(ctx: JobContext, input: Rows) -> str:
            """Wait until the test says so, and return the due time."""
            due = str(ctx.metadata["due"])
            self.begun.append(due)
            try:
                await self.release.wait()
            except JobCancelled:
                self.ended.append((due, "cancelled"))
                raise
            self.ended.append((due, "done"))
            return due

    def scheduler(self, **options: Any) -> Scheduler:
        """Make one more scheduler of this store."""
        policies = options.pop("policies", BUILT_IN_POLICIES)
        registry = options.pop("registry", self.registry)
        return Scheduler(
            self.jobs.store, registry, policies, on_fired=lambda *fired: self.fired.append(fired), **options
        )

    async def now_ms(self) -> int:
        """Ask for the store's time."""
        return (await self.jobs.store.run(schedule_commands.due_schedules(0))).now_ms

    async def put_overdue(self, behind_ms: int, **fields: Any) -> Schedule:
        """Store a schedule whose next due time was so long ago."""
        schedule = Schedule.model_validate(
            {"name": "nightly", "type": "test.hold", "input": {"rows": 1}} | fields
        )
        next_ms = schedule.timing.last_at(await self.now_ms() - behind_ms)
        await self.jobs.store.run(
            schedule_commands.put_schedule(
                0, schedule.name, version="v", definition=schedule.model_dump_json().encode(),
                origin=API, timing="t", next_ms=next_ms,
            )
        )  # fmt: skip
        return schedule

    async def record(self, name: str = "nightly") -> ScheduleRecord:
        """Read what the store keeps of a schedule."""
        return (await self.book.get(name)).record

    async def runs(self) -> list[JobRecord]:
        """Read all jobs of the system, the oldest due time first."""
        found = await self.jobs.store.run(commands.list_jobs(0, SYSTEM, limit=1_000))
        return sorted(found, key=lambda record: str((record.spec.metadata or {})["due"]))


@pytest.fixture
async def desk(valkey_url: str, keyspace: Keyspace) -> AsyncIterator[Desk]:
    """Give a store without a worker."""
    async with open_jobs(valkey_url, keyspace, Registry()) as jobs:
        yield Desk(jobs)


async def look_to_the_end(scheduler: Scheduler) -> None:
    """Look until nothing is due: what is caught up may take several calls."""
    for _ in range(100):
        if await scheduler.look(0) > 0.01:
            return
    raise AssertionError("something is due for ever")


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


def make(name: str = "often", **fields: Any) -> Schedule:
    """Make a schedule that is due ten times a second."""
    return Schedule.model_validate(
        {"name": name, "type": "test.hold", "input": {"rows": 1}, "every_s": 0.1} | fields
    )


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


async def test_the_settings_decide_about_theirs(desk: Desk) -> None:
    """New ones come, changed ones change, those gone are removed; others' stay, and what is paused stays paused."""
    await desk.book.create(make("by-hand", every_s=3600))
    await desk.scheduler().declare({"a": make("a", every_s=3600), "b": make("b", every_s=3600)})
    await desk.book.pause("a")
    await desk.scheduler().declare({"a": make("a", every_s=1800), "c": make("c", every_s=3600)})
    found = {entry.schedule.name: entry for entry in await desk.book.page()}
    assert {name: entry.record.origin for name, entry in found.items()} == {
        "a": SETTINGS,
        "by-hand": API,
        "c": SETTINGS,
    }
    assert found["a"].record.is_paused
    assert found["a"].schedule.every_s == 1800


async def test_a_restart_with_the_same_settings_loses_nothing(desk: Desk) -> None:
    """What was due before is still due."""
    declared = {"nightly": make("nightly", every_s=3600)}
    await desk.scheduler().declare(declared)
    before = await desk.record()
    await desk.scheduler().declare(declared)
    assert await desk.record() == before


async def test_a_declared_schedule_takes_the_place_of_one_made_by_hand(desk: Desk) -> None:
    """It is the settings' from then on, and can't be changed by hand."""
    await desk.book.create(make("a", every_s=3600))
    await desk.scheduler().declare({"a": make("a", every_s=1800)})
    assert (await desk.record("a")).origin == SETTINGS
    for change in (desk.book.replace(make("a")), desk.book.delete("a")):
        with pytest.raises(ScheduleConflict, match="declared in the settings"):
            await change


async def test_a_declared_type_that_is_not_here_is_left_as_it_is(desk: Desk) -> None:
    """Neither stored nor removed by this process."""
    declared = {"a": make("a", every_s=3600)}
    await desk.scheduler().declare(declared)
    await desk.scheduler(registry=Registry()).declare(declared)
    assert (await desk.record("a")).origin == SETTINGS


async def test_a_new_owner_in_the_settings_moves_the_schedule(valkey_url: str, key_prefix: str) -> None:
    """To the owner's shard: there is one of its name in all."""
    keyspace = Keyspace(key_prefix, 8)
    owners = [f"o{n}" for n in range(20)]
    first = owners[0]
    shard_of = {owner: keyspace.shard_of_tenant(Tenant(owner)) for owner in owners}
    other = next(owner for owner in owners if shard_of[owner] != shard_of[first])
    async with open_jobs(valkey_url, keyspace, Registry()) as jobs:
        desk = Desk(jobs)
        for owner in (first, other):
            await desk.scheduler().declare({"a": make("a", every_s=3600, owner=owner)})
            [entry] = await desk.book.page()
            assert (entry.schedule.owner, entry.shard) == (owner, shard_of[owner])


async def test_a_schedule_is_checked_when_it_is_made(desk: Desk) -> None:
    """Its type, its input, its queue, its size and its name."""
    with pytest.raises(UnknownJobType, match=r"did you mean test\.hold"):
        await desk.book.create(make(type="test.holt"))
    with pytest.raises(InvalidInput, match=r"input\.rows"):
        await desk.book.create(make(input={"rows": 0}))
    with pytest.raises(InvalidInput, match="queue"):
        await desk.book.create(make(queue="nowhere"))
    with pytest.raises(InvalidInput, match="65,536 bytes"):
        await desk.book.create(make(input={"rows": 1, "note": "x" * 70_000}))
    await desk.book.create(make(every_s=3600))
    with pytest.raises(ScheduleConflict, match="already"):
        await desk.book.create(make(every_s=3600))
    with pytest.raises(ScheduleConflict, match="owner"):
        await desk.book.replace(make(owner="bob"))
    with pytest.raises(ScheduleMissing):
        await desk.book.replace(make("other"))


async def test_a_worker_refuses_declared_inputs_that_are_not_valid(
    desk: Desk, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """Before it begins, and with the field's whole path."""
    settings = {"schedules": {"nightly": {"type": "test.hold", "cron": "@daily", "input": {"rows": 0}}}}
    with pytest.raises(SettingsError, match=r"schedules\.nightly\.input\.rows"):
        async with running_worker(valkey_url, keyspace, desk.registry, tmp_path, **settings) as running:
            await running.ended()


async def test_a_worker_fires_what_its_settings_declare(
    desk: Desk, valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """Also where it serves another queue."""
    desk.release.set()
    settings = {"schedules": {"often": {"type": "test.hold", "every_s": 0.1, "input": {"rows": 1}}}}
    async with running_worker(valkey_url, keyspace, desk.registry, tmp_path, queues=["ai"], **settings):
        await eventually(desk.runs)
    assert (await desk.record("often")).origin == SETTINGS
    assert desk.begun == []


def test_settings_name_the_field_of_a_schedule() -> None:
    """As for every other setting."""
    with pytest.raises(ValueError) as refused:
        Settings.model_validate({"schedules": {"nightly": {"type": "x", "cron": "61 * * * *"}}})
    assert "schedules.nightly.cron" in str(refused.value)
