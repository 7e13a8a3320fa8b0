"""What is run and what was missed after a gap, how runs are spread, and what a schedule may not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from tidings_tasks.job_modules import import_job_modules
from tidings_tasks.schedules.cron import Cron
from tidings_tasks.schedules.declared import check_declared
from tidings_tasks.schedules.schedule import CatchUp, Overlap, Schedule
from tidings_tasks.schedules.timing import Interval, Plan, jitter_ms, plan_fire
from tidings_tasks.settings import load_settings
from tidings_tasks.store import Keyspace

HOUR_MS = 3_600_000


def plan(now_ms: int, catch_up: str, *, expected_ms: int = HOUR_MS, limit: int = 100) -> Plan:
    """Plan an hourly schedule with a minute of grace."""
    timing = Interval(HOUR_MS)
    return plan_fire(timing, expected_ms, now_ms, catch_up=catch_up, limit=limit, on_time_ms=60_000)


@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
def test_what_is_due_in_time_is_run_by_every_policy(catch_up: str) -> None:
    """One run, nothing missed, and the next an hour later."""
    assert plan(HOUR_MS + 59_000, catch_up) == Plan([HOUR_MS], 0, 2 * HOUR_MS)


def test_none_runs_nothing_that_is_late() -> None:
    """All of it is counted as missed."""
    assert plan(3 * HOUR_MS + 61_000, "none") == Plan([], 3, 4 * HOUR_MS)
    assert plan(3 * HOUR_MS + 60_000, "none") == Plan([3 * HOUR_MS], 2, 4 * HOUR_MS)


def test_last_runs_the_newest_however_late() -> None:
    """The others were missed."""
    assert plan(4 * HOUR_MS - 1, "last") == Plan([3 * HOUR_MS], 2, 4 * HOUR_MS)


def test_all_runs_everything_in_order_up_to_its_limit() -> None:
    """Beyond the limit the oldest are missed."""
    assert plan(4 * HOUR_MS - 1, "all") == Plan([HOUR_MS, 2 * HOUR_MS, 3 * HOUR_MS], 0, 4 * HOUR_MS)
    assert plan(4 * HOUR_MS - 1, "all", limit=2) == Plan([2 * HOUR_MS, 3 * HOUR_MS], 1, 4 * HOUR_MS)


def test_missed_runs_are_counted_within_bounds() -> None:
    """Years of a schedule of every minute are not walked through."""
    timing = Cron("* * * * *", ZoneInfo("Europe/Berlin"))
    year_ms = 366 * 24 * HOUR_MS
    found = plan_fire(timing, 60_000, year_ms, catch_up="last", limit=1, on_time_ms=1)
    assert found == Plan([year_ms], 1_000, year_ms + 60_000)


def test_a_due_time_that_is_one_no_more_runs_nothing() -> None:
    """As after a change of a time zone's rules: what was expected is passed over, and time goes on."""
    assert plan(HOUR_MS + 5, "last", expected_ms=HOUR_MS + 1) == Plan([], 0, 2 * HOUR_MS)


def test_intervals_count_from_the_epoch() -> None:
    """So that every process agrees, and an hour is due on the hour."""
    timing = Interval(200)
    assert (timing.next_after(0), timing.next_after(199), timing.next_after(200)) == (200, 200, 400)
    assert (timing.last_at(199), timing.last_at(200), timing.last_at(399)) == (0, 200, 200)


def test_jitter_is_the_same_whoever_asks_and_stays_in_its_bounds() -> None:
    """It differs from run to run and from schedule to schedule."""
    found = {jitter_ms("a", due, 1_000) for due in range(500)}
    assert jitter_ms("a", 7, 1_000) == jitter_ms("a", 7, 1_000)
    assert 0 <= min(found) < max(found) <= 1_000
    assert len(found) > 300
    assert jitter_ms("a", 7, 0) == 0


@pytest.mark.parametrize(
    ("fields", "where", "reason"),
    [
        ({}, "", "cron: give either cron or every_s"),
        ({"cron": "@daily", "every_s": 5}, "", "cron: give either cron or every_s"),
        ({"cron": "0 0 30 2 *"}, "cron", "is never due"),
        ({"cron": "@daily", "time_zone": "Europe/Berln"}, "time_zone", "did you mean Europe/Berlin?"),
        ({"cron": "@daily", "time_zone": "America"}, "time_zone", "is no IANA time zone"),
        ({"cron": "@daily", "time_zone": "../../etc/passwd"}, "time_zone", "is no IANA time zone"),
        ({"every_s": 5, "time_zone": "Europe/Berlin"}, "", "time_zone: goes with cron"),
        ({"every_s": 0.01}, "every_s", "greater than or equal to 0.1"),
        ({"every_s": 5, "catch_up": "all"}, "", 'which needs overlap = "queue"'),
        ({"every_s": 5, "name": "a b"}, "name", "should match pattern"),
        ({"every_s": 5, "what": 1}, "what", "not permitted"),
    ],
)
def test_a_schedule_that_contradicts_itself_is_refused(
    fields: dict[str, Any], where: str, reason: str
) -> None:
    """With the field, the reason and the way out."""
    with pytest.raises(ValidationError) as refused:
        Schedule.model_validate({"name": "nightly", "type": "test.rows"} | fields)
    [error] = refused.value.errors()
    assert ".".join(str(part) for part in error["loc"]) == where
    assert reason in error["msg"]


def test_a_schedule_says_little_when_all_is_usual() -> None:
    """UTC, the system's job, no overlap, and after a gap the last run."""
    schedule = Schedule(name="nightly", type="test.rows", cron="@daily")
    assert (schedule.time_zone, schedule.owner, schedule.org) == ("UTC", "system", None)
    assert (schedule.overlap, schedule.catch_up) == (Overlap.SKIP, CatchUp.LAST)
    assert schedule.timing.next_after(0) == 24 * HOUR_MS


def test_the_examples_schedules_suit_their_job_types() -> None:
    """Whoever copies them can start a worker."""
    config = Path(__file__).parents[2] / "examples" / "tidings.toml"
    settings = load_settings({}, dotenv=None, config=config)
    registry = import_job_modules(["tidings_tasks.jobs.report"])
    assert settings.schedules
    assert check_declared(settings.schedules, registry, settings.queues, Keyspace()) == []
