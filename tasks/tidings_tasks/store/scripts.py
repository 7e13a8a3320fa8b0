"""The Lua scripts: each file behind its preludes, loaded once, called by SHA."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["Script", "load_script"]

_READING = frozenset(
    {
        "read_job",
        "read_jobs",
        "read_events",
        "heads",
        "list_jobs",
        "list_open",
        "read_feed",
        "count_jobs",
        "list_workers",
        "read_durations",
        "read_queues",
        "read_breakers",
        "read_dead_groups",
        "list_dead",
        "list_schedules",
        "read_schedule",
        "due_schedules",
    }
)
_READ_ON = ("read_prelude",)
_WRITE_ON = ("prelude", "feeds", "lines", "transitions")
# Beyond that: a script in which jobs leave a line or end needs to know the gates, one that stores jobs how that is done.
_MORE = {
    "enqueue": ("storing",),
    "step": ("gates",),
    "cancel": ("gates",),
    "change": ("gates",),
    "purge_queue": ("gates",),
    "put_schedule": ("schedules",),
    "pause_schedule": ("schedules",),
    "drop_schedule": ("schedules",),
    "fire_schedule": ("gates", "storing", "schedules"),
    "run_schedule": ("storing", "schedules"),
    "list_schedules": ("schedules",),
    "read_schedule": ("schedules",),
    "due_schedules": ("schedules",),
}
# A full store takes no new jobs, but what it has must be able to run, end and be removed.
_REFUSED_WHEN_FULL = frozenset({"enqueue", "put_schedule", "fire_schedule", "run_schedule"})


@dataclass(frozen=True, slots=True)
class Script:
    """A script's whole source and its SHA-1, by which the store knows it."""

    name: str
    source: str
    sha: str


@cache
def load_script(name: str) -> Script:
    """Read ``lua/<name>.lua`` and put in front what it builds on; ``attach`` stands alone."""
    folder = resources.files(__package__) / "lua"
    names = [name]
    if name != "attach":
        names = ["shared", *(_READ_ON if name in _READING else _WRITE_ON), *_MORE.get(name, ()), name]
    source = "".join((folder / f"{part}.lua").read_text("utf-8") for part in names)
    flag = "no-writes" if name in _READING else "" if name in _REFUSED_WHEN_FULL else "allow-oom"
    source = f"#!lua flags={flag}\n{source}" if flag else f"#!lua\n{source}"
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())
