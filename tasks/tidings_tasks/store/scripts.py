"""The Lua scripts: each file behind its preludes, loaded once as a function of the store, called by name.

A function costs less than a script of EVALSHA, which makes all its closures anew at each call.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["Script", "load_attach", "load_script", "make_script"]

_FOLDER = resources.files(__package__) / "lua"

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
        "list_queues",
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
_FLOWS = ("creation", "flows")
_STORE = (*_FLOWS, "storing")
# Beyond that: a script in which jobs leave a line or end needs to know the gates and what that means to a flow, one that stores
# jobs how that is done.
_MORE = {
    "enqueue": _STORE,
    "step": ("gates", *_FLOWS, "writing", "upkeep", "claiming"),
    "cancel": ("gates", *_FLOWS),
    "change": ("gates", *_FLOWS),
    "purge_queue": ("gates", *_FLOWS),
    "put_schedule": ("schedules",),
    "pause_schedule": ("schedules",),
    "drop_schedule": ("schedules",),
    "fire_schedule": ("gates", *_STORE, "schedules"),
    "run_schedule": (*_STORE, "schedules"),
    "list_schedules": ("schedules",),
    "read_schedule": ("schedules",),
    "due_schedules": ("schedules",),
}
# A full store takes no new jobs, but what it has must be able to run, end and be removed.
_REFUSED_WHEN_FULL = frozenset({"enqueue", "put_schedule", "fire_schedule", "run_schedule"})


@dataclass(frozen=True, slots=True)
class Script:
    """A script as the store runs it: a function in a library of its own, both named for the whole source.

    Versions of a script are different functions, so that processes of two releases work on one store side by side. A store
    that lacks the function says so, and is given the ``library`` then. One that takes none, since it is full, a replica, or
    forbids it, runs ``text`` by EVAL.
    """

    name: str
    function: str
    library: str
    text: str


@cache
def load_script(name: str) -> Script:
    """Read ``lua/<name>.lua`` with what it builds on in front."""
    return make_script(name, (_FOLDER / f"{name}.lua").read_text("utf-8"))


@cache
def load_attach() -> str:
    """Read ``attach.lua``, which stands alone and is run by EVAL, once on each new connection."""
    return "#!lua flags=allow-oom\n" + (_FOLDER / "attach.lua").read_text("utf-8")


def make_script(name: str, body: str) -> Script:
    """Build a script of this text, with what the script of that name builds on."""
    parts = ("shared", *(_READ_ON if name in _READING else _WRITE_ON), *_MORE.get(name, ()))
    shared = "".join((_FOLDER / f"{part}.lua").read_text("utf-8") for part in parts)
    flag = "no-writes" if name in _READING else "" if name in _REFUSED_WHEN_FULL else "allow-oom"
    digest = hashlib.sha256(f"{flag}\n{shared}\n{body}".encode()).hexdigest()[:16]
    function = f"tidings_{name}_{digest}"
    call = f"local refusal = begin_call(keys, argv)\nif refusal then return refusal end\n{body}\n"
    library = (
        f"#!lua name={function}\n{shared}\n"
        f"redis.register_function{{ function_name = '{function}', flags = {{ {repr(flag) if flag else ''} }},\n"
        f"callback = function(keys, argv)\n{call}end }}\n"
    )
    flags = f" flags={flag}" if flag else ""
    # In a function of its own, since Lua allows 200 local names in each.
    text = f"#!lua{flags}\nlocal keys, argv = KEYS, ARGV\n{shared}\nreturn (function()\n{call}end)()\n"
    return Script(name, function, library, text)
