"""Cron expressions in a time zone: when they are due, next and last. Pure; no clock.

The expression is parsed by cronsim, which follows Debian's cron. When it is due is worked out here, a day at a time,
since cronsim misses runs where daylight saving shifts by half an hour (Lord Howe Island) and can go back in time when it starts in
the second pass of an hour that comes twice. The rules are Debian's (crontab(5) and cron(8)):

- Fixed times, where neither the minute nor the hour begins with ``*``: each is due once a day. A time that the clock jumps
  over is due right after the jump; of a time that comes twice, the first one counts.
- All others follow the clock: what it jumps over is not due, and what comes twice is due twice.
- A day matches when both day of month and day of week do; when neither of the two begins with ``*``, one is enough.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

__all__ = ["Cron"]

_NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31 or L (the last day)",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT (0 and 7 are Sunday)",
}
_MAX_CHARS = 200
_DAYS_AHEAD = 366 * 41
"""29 February on a given weekday comes back after 40 years at most, around a year 2100 without one."""

_ANY_DAY = datetime(2000, 1, 1)  # noqa: DTZ001 - cronsim is only asked to parse


class Cron:
    """One expression in one time zone. Times are ms since the Unix epoch.

    Args:
        text: five fields (minute, hour, day of month, month, day of week), or a name such as ``@daily``.

    Raises:
        ValueError: it is no such expression, or is never due; the message says which field and what it takes.
    """

    def __init__(self, text: str, zone: ZoneInfo) -> None:
        self._zone = zone
        fields = _fields_of(text)
        try:
            parsed = CronSim(" ".join(fields), _ANY_DAY)
        except CronSimError as error:
            raise ValueError(_explain(str(error), text, fields)) from None
        self._match_day = parsed.match_day
        self._months = parsed.months
        self._is_fixed = not fields[0].startswith("*") and not fields[1].startswith("*")
        self._minutes = sorted(60 * hour + minute for hour in parsed.hours for minute in parsed.minutes)
        self._day = lru_cache(maxsize=4)(self._due_on)
        if next(self._days(date(2000, 1, 1), 1), None) is None:
            raise ValueError(_never(text))

    def next_after(self, ms: int) -> int | None:
        """Return the first due time after ``ms``; None when there is none that a calendar can name."""
        found: int | None = None
        # A day's times may reach into the next one where the clock is changed at midnight, so one more day is looked at.
        for day in self._days(self._date_of(ms) - timedelta(days=1), 1):
            due = self._day(day)
            at = bisect_right(due, ms)
            if found is not None:
                return min(found, due[at]) if at < len(due) else found
            if at < len(due):
                found = due[at]
        return found

    def last_at(self, ms: int) -> int | None:
        """Return the newest due time that is not after ``ms``; None when there is none."""
        found: int | None = None
        for day in self._days(self._date_of(ms) + timedelta(days=1), -1):
            due = self._day(day)
            at = bisect_right(due, ms)
            if found is not None:
                return max(found, due[at - 1]) if at else found
            if at:
                found = due[at - 1]
        return found

    def _date_of(self, ms: int) -> date:
        return datetime.fromtimestamp(ms / 1000, self._zone).date()

    def _days(self, day: date, step: int) -> Iterator[date]:
        """Yield the matching days from ``day`` on, forwards or backwards, for as long as one can be expected."""
        left = _DAYS_AHEAD
        one = timedelta(days=step)
        try:
            while left > 0:
                if day.month in self._months and self._match_day(day):
                    yield day
                day += one
                left -= 1
        except OverflowError:
            return

    def _due_on(self, day: date) -> list[int]:
        """Return the due times of one day of the local calendar, in order."""
        midnight = datetime.combine(day, time(), self._zone)
        # Of a midnight that comes twice the second counts: then the evening before it does so too.
        next_midnight = (midnight + timedelta(days=1)).replace(fold=1)
        if midnight.utcoffset() == next_midnight.utcoffset():
            start = _to_ms(midnight)
            return [start + 60_000 * minute for minute in self._minutes]
        # The clock is changed on this day.
        walls = (midnight + timedelta(minutes=minute) for minute in self._minutes)
        return sorted({ms for wall in walls for ms in self._instants(wall)})

    def _instants(self, wall: datetime) -> Iterator[int]:
        """Yield when a local time is due: once, twice, or not at all."""
        first, second = _to_ms(wall.replace(fold=0)), _to_ms(wall.replace(fold=1))
        if second < first:  # the clock jumps over it (PEP 495)
            if self._is_fixed:
                yield self._end_of_gap(second, first)
            return
        yield first
        if second > first and not self._is_fixed:
            yield second

    def _end_of_gap(self, before: int, after: int) -> int:
        """Return when the clock jumps, which is between these two."""
        offset = self._offset_at(before)
        while after - before > 1000:
            middle = (before + after) // 2000 * 1000
            if self._offset_at(middle) == offset:
                before = middle
            else:
                after = middle
        return after

    def _offset_at(self, ms: int) -> timedelta | None:
        return datetime.fromtimestamp(ms / 1000, self._zone).utcoffset()


def _fields_of(text: str) -> list[str]:
    words = text.strip().lower()
    if words.startswith("@"):
        if words not in _NAMES:
            raise ValueError(f"{text[:40]!r} is not known; the names are {', '.join(_NAMES)}")
        words = _NAMES[words]
    fields = words.upper().split()
    if len(text) > _MAX_CHARS or len(fields) != len(_FIELDS):
        raise ValueError(
            f"write five fields, minute hour day-of-month month day-of-week, such as '30 2 * * MON-FRI', not {len(fields)}"
        )
    return fields


def _explain(reason: str, text: str, fields: list[str]) -> str:
    field = reason.removeprefix("Bad ")
    if field not in _FIELDS:
        return f"{text!r} is no cron expression: {reason}"
    if field == "day-of-month":
        with contextlib.suppress(CronSimError):
            CronSim(" ".join([*fields[:3], "*", fields[4]]), _ANY_DAY)
            return _never(text)
    return f"the {field} of {text!r} is not valid; it takes {_FIELDS[field]}, lists (1,2), ranges (1-5) and steps (*/5)"


def _never(text: str) -> str:
    return f"{text!r} is never due: none of its months has such a day"


def _to_ms(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) * 1000
