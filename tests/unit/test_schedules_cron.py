"""When cron expressions are due: across changes of the clock, leap days, and what is never due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from tidings_tasks.schedules.cron import Cron
from tidings_tasks.schedules.timing import next_runs

UTC_ZONE = ZoneInfo("UTC")
YEARS = datetime.fromisoformat("2024-01-01"), datetime.fromisoformat("2030-01-01")


def ms_of(text: str, zone: ZoneInfo = UTC_ZONE) -> int:
    """Read a local time, or one with an offset, as ms since the epoch."""
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()) * 1000


def due(cron: str, zone_name: str, after: str, count: int) -> list[str]:
    """Return the runs after a local time, as local times with their offset."""
    zone = ZoneInfo(zone_name)
    found = islice(next_runs(Cron(cron, zone), ms_of(after, zone)), count)
    return [datetime.fromtimestamp(ms / 1000, zone).isoformat(timespec="minutes") for ms in found]


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # Berlin, 29 March 2026: 02:00 becomes 03:00.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00", ["2026-03-28T02:30+01:00", "2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("15,45 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:15+02:00"]),
        ("30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T01:00", ["2026-03-29T01:30+01:00", "2026-03-29T03:00+02:00", "2026-03-29T03:30+02:00"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["2026-03-30T02:00+02:00", "2026-03-30T02:30+02:00"]),
        # Berlin, 25 October 2026: 03:00 becomes 02:00.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T02:10+01:00", ["2026-10-26T02:30+01:00"]),
        ("0 3 * * *", "Europe/Berlin", "2026-10-24T12:00", ["2026-10-25T03:00+01:00"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T01:45", ["2026-10-25T02:00+02:00", "2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00", "2026-10-25T02:30+01:00", "2026-10-25T03:00+01:00"]),
        # New York, 8 March and 1 November 2026, at 02:00.
        ("30 2 * * *", "America/New_York", "2026-03-07T12:00", ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
        ("0 * * * *", "America/New_York", "2026-11-01T00:30", ["2026-11-01T01:00-04:00", "2026-11-01T01:00-05:00", "2026-11-01T02:00-05:00"]),
        # Lord Howe Island shifts by half an hour: 02:00 becomes 01:30 on 5 April, 02:30 on 4 October 2026.
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"]),
        ("0 */2 * * *", "Australia/Lord_Howe", "2026-04-05T00:00", ["2026-04-05T02:00+10:30", "2026-04-05T04:00+10:30"]),
        ("*/15 1 * * *", "Australia/Lord_Howe", "2026-04-05T01:20", ["2026-04-05T01:30+11:00", "2026-04-05T01:45+11:00", "2026-04-05T01:30+10:30", "2026-04-05T01:45+10:30", "2026-04-06T01:00+10:30"]),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"]),
        ("*/15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", ["2026-10-04T02:30+11:00", "2026-10-04T02:45+11:00", "2026-10-05T02:00+11:00"]),
        # A clock that is changed at midnight: 00:00 becomes 01:00 in Beirut on 29 March 2026; 00:00 becomes 23:00 of the day before on 25 October.
        ("@daily", "Asia/Beirut", "2026-03-28T12:00", ["2026-03-29T01:00+03:00", "2026-03-30T00:00+03:00"]),
        ("30 23 * * *", "Asia/Beirut", "2026-10-24T12:00", ["2026-10-24T23:30+03:00", "2026-10-25T23:30+02:00"]),
        # A whole day that never was: Samoa had no 30 December 2011.
        ("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00", ["2011-12-29T12:00-10:00", "2011-12-31T00:00+14:00", "2011-12-31T12:00+14:00"]),
        # In St. John's the clock went back from 00:01 to 23:01 of the day before, on 7 November 2010.
        ("30 * * * *", "America/St_Johns", "2010-11-06T22:45", ["2010-11-06T23:30-02:30", "2010-11-06T23:30-03:30", "2010-11-07T00:30-03:30"]),
        ("0 * * * *", "America/St_Johns", "2010-11-06T22:45", ["2010-11-06T23:00-02:30", "2010-11-07T00:00-02:30", "2010-11-07T00:00-03:30"]),
        # Leap days.
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["2028-02-29T00:00+00:00", "2032-02-29T00:00+00:00"]),
        ("0 0 29 2 *", "UTC", "2096-03-01T00:00", ["2104-02-29T00:00+00:00"]),
        # Days.
        ("0 9 L * *", "UTC", "2026-02-01T00:00", ["2026-02-28T09:00+00:00", "2026-03-31T09:00+00:00"]),
        ("0 9 * * MON-FRI", "UTC", "2026-11-27T10:00", ["2026-11-30T09:00+00:00"]),
        ("0 9 13 * FRI", "UTC", "2026-11-12T00:00", ["2026-11-13T09:00+00:00", "2026-11-20T09:00+00:00"]),
        ("@hourly", "UTC", "2026-11-12T00:00", ["2026-11-12T01:00+00:00"]),
        ("@Weekly", "UTC", "2026-11-12T00:00", ["2026-11-15T00:00+00:00"]),
        ("0 0 * * 7", "UTC", "2026-11-12T00:00", ["2026-11-15T00:00+00:00"]),
    ],
)  # fmt: skip
def test_due_times(cron: str, zone: str, after: str, expected: list[str]) -> None:
    """Fixed times run once a day, what follows the clock runs when the clock shows it."""
    assert due(cron, zone, after, len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "reason"),
    [
        ("0 0 30 2 *", "never due: none of its months has such a day"),
        ("0 0 31 2,4,6 *", "never due"),
        ("61 * * * *", "the minute of '61 * * * *' is not valid; it takes 0-59"),
        ("0 24 * * *", "the hour of"),
        ("0 0 0 * *", "the day-of-month of"),
        ("0 0 * 13 *", "the month of"),
        ("0 0 * * FRY", "the day-of-week of"),
        ("*/0 * * * *", "the minute of"),
        ("* * * *", "write five fields, minute hour day-of-month month day-of-week"),
        ("0 * * * * *", "not 6"),
        ("@reboot", "'@reboot' is not known; the names are @yearly"),
        ("", "not 0"),
        ("0 " * 300, "write five fields"),
    ],
)
def test_what_is_no_expression_is_refused_with_its_field(cron: str, reason: str) -> None:
    """The message names the field and what it takes."""
    with pytest.raises(ValueError) as refused:
        Cron(cron, UTC_ZONE)
    assert reason in str(refused.value)


FIELD = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 7)}


def expressions() -> st.SearchStrategy[str]:
    """Make expressions of all forms, most of them due."""
    fields = [
        st.one_of(
            st.just("*"),
            st.integers(2, 7).map(lambda step: f"*/{step}"),
            st.integers(low, high).map(str),
            st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda pair: f"{min(pair)}-{max(pair)}"),
            st.lists(st.integers(low, high).map(str), min_size=1, max_size=3).map(",".join),
        )
        for low, high in FIELD.values()
    ]  # fmt: skip
    return st.tuples(*fields).map(" ".join)


@given(expressions(), st.datetimes(YEARS[0], YEARS[1]))
def test_without_a_change_of_the_clock_it_is_due_as_cronsim_says(cron: str, after: datetime) -> None:
    """In UTC the two agree on every expression."""
    try:
        timing = Cron(cron, UTC_ZONE)
    except ValueError:
        return
    theirs = CronSim(cron, after.replace(tzinfo=UTC))
    expected = [int(moment.timestamp()) * 1000 for moment in islice(theirs, 5)]
    assert list(islice(next_runs(timing, int(after.replace(tzinfo=UTC).timestamp()) * 1000), 5)) == expected


@given(
    expressions(),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "America/St_Johns"]),
    st.integers(ms_of("2009-01-01T00:00"), ms_of("2030-01-01T00:00")),
)  # fmt: skip
def test_looking_back_finds_what_looking_ahead_does(cron: str, zone: str, after_ms: int) -> None:
    """Next and last are each other's opposite at every time, and time only goes forward."""
    try:
        timing = Cron(cron, ZoneInfo(zone))
    except ValueError:
        return
    before = after_ms
    for ms in islice(next_runs(timing, after_ms), 3):
        assert ms > before
        assert timing.last_at(ms) == ms
        former = timing.last_at(ms - 1)
        assert former is None or former <= before
        before = ms


@given(
    st.sampled_from(["30 2 * * *", "0,30 1,2,3 * * *", "59 23 * * *", "0 0 * * *"]),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut"]),
    st.dates(YEARS[0].date(), YEARS[1].date()),
)
def test_fixed_times_are_due_once_a_day(cron: str, zone: str, day: object) -> None:
    """At most once for each, and at least once in all, whatever the clock does."""
    start = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=ZoneInfo(zone))
    end = start + timedelta(days=1)
    timing = Cron(cron, ZoneInfo(zone))
    runs = []
    for ms in next_runs(timing, int(start.timestamp()) * 1000 - 1):
        if ms >= int(end.timestamp()) * 1000:
            break
        runs.append(ms)
    minutes, hours = cron.split()[:2]
    assert 1 <= len(runs) <= len(minutes.split(",")) * len(hours.split(","))
