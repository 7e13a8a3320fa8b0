"""A year of schedules on the store's own clock, changes of the local clock included: several processes, each due time once."""

from __future__ import annotations

import random
from itertools import takewhile

import pytest
from pydantic import BaseModel

from tidings_tasks import JobContext, job
from tidings_tasks.queue.queues import BUILT_IN_POLICIES
from tidings_tasks.registry import Registry
from tidings_tasks.schedules import Schedule
from tidings_tasks.schedules.runs import Press
from tidings_tasks.schedules.timing import next_runs
from tidings_tasks.store import Tenant, iso_time, schedule_commands
from tidings_tasks.store.bulk_commands import list_open

from .bench import START_MS, Bench

DAY_MS = 86_400_000
REGISTRY = Registry()


class Nothing(BaseModel):
    """No input."""


@job("test.nothing", registry=REGISTRY)
async def nothing(ctx: JobContext, input: Nothing) -> None:
    """Not run here."""


@pytest.mark.parametrize(
    ("cron", "zone", "days"),
    [
        ("30 2 * * *", "Europe/Berlin", 366),
        ("30 1 * * *", "America/New_York", 366),
        ("15 2 * * *", "Australia/Lord_Howe", 366),
        ("0 */6 * * *", "Australia/Lord_Howe", 120),
    ],
)
@pytest.mark.parametrize("catch_up", ["all", "last"])
def test_a_year_of_due_times_is_one_job_each(
    bench: Bench, cron: str, zone: str, days: int, catch_up: str
) -> None:
    """Whoever looks, in whatever order, however late, with whatever they believe; repeated calls and all."""
    bench.checks = False
    chance = random.Random(f"{cron}{zone}{catch_up}")
    schedule = Schedule(
        name="s", type="test.nothing", cron=cron, time_zone=zone, overlap="queue", catch_up=catch_up,
        catch_up_limit=1000,
    )  # fmt: skip
    put = schedule_commands.put_schedule(
        0, "s", version="v", definition=b"{}", origin="api", timing="t",
        next_ms=schedule.timing.next_after(START_MS),
    )  # fmt: skip
    bench.run(put)
    presses = [Press(bench.keyspace, REGISTRY, BUILT_IN_POLICIES) for _ in range(3)]
    end_ms = START_MS + days * DAY_MS
    stale: list[schedule_commands.DueSchedule] = []
    ran: list[str] = []
    while bench.now_ms < end_ms:
        # Mostly each is in time; now and then nobody looks for some days.
        bench.advance(chance.choice([1, 1, 1, 1, 4]) * DAY_MS + chance.randrange(-600_000, 600_000))
        while due := bench.run(schedule_commands.due_schedules(0)).due:
            stale.append(due[0])
            for press in chance.sample(presses, 2):
                tried = chance.choice([due[0], due[0], chance.choice(stale)])
                fire = (
                    press.make_fire(schedule, tried, bench.now_ms) if tried.due_ms <= bench.now_ms else None
                )
                if fire is not None:
                    bench.run(fire)
                    bench.run(fire)
        page = bench.run(list_open(0, Tenant("system")))
        for entry in page:
            bench.cancel(entry.id)
            ran.append(str((bench.record(entry.id).spec.metadata or {})["due"]))
    expected = [
        iso_time(ms) for ms in takewhile(lambda ms: ms <= bench.now_ms, next_runs(schedule.timing, START_MS))
    ]
    record = bench.run(schedule_commands.read_schedule(0, "s")).record
    assert record is not None
    assert len(set(ran)) == len(ran) == record.runs
    if catch_up == "all":
        assert sorted(ran) == expected
    else:
        assert set(ran) <= set(expected)
        assert record.runs + record.missed == len(expected)
