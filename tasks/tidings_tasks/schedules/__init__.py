"""Schedules: jobs that are submitted by the clock, once for each due time, however many processes look at it.

What needs the store or the job types (``book``, ``scheduler``, ``declared``) is imported from its own module: the settings
import this package.
"""

from .schedule import CatchUp, Overlap, Schedule, ScheduleFields, ScheduleName

__all__ = ["CatchUp", "Overlap", "Schedule", "ScheduleFields", "ScheduleName"]
