"""Schedules: jobs that are submitted by the clock, once for each due time, however many processes look at it."""

from .schedule import CatchUp, Overlap, Schedule, ScheduleFields, ScheduleName

__all__ = ["CatchUp", "Overlap", "Schedule", "ScheduleFields", "ScheduleName"]
