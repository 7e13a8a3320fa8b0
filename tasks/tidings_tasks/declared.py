"""What is declared by name: the tables of ``tidings.toml``, and over them the JSON of ``TIDINGS_QUEUES`` and its like.

Nothing is validated here but the form: a file or variable that cannot be read is a problem, to be told with all others.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidings.protocol.errors import FieldError

from .queue.dependencies import Dependency
from .queue.profiles import Profile
from .queue.queues import QueuePolicy
from .schedules.schedule import Schedule

__all__ = ["SECTIONS", "Declared", "read_declared"]

SECTIONS = ("queues", "profiles", "dependencies", "schedules")
"""The tables of the file; each is the variable ``TIDINGS_<SECTION>`` too."""

_FIELDS: Mapping[str, Iterable[str]] = {
    "queues": QueuePolicy.model_fields,
    "profiles": Profile.model_fields,
    "dependencies": Dependency.model_fields,
    "schedules": Schedule.model_fields,
}
_MAX_FILE_BYTES = 1_048_576


@dataclass
class Declared:
    """``tables``: by section, by name, the fields as they were written. ``problems``: what could not be read."""

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[FieldError] = field(default_factory=list)
    _origins: dict[tuple[Any, ...], tuple[str, str]] = field(default_factory=dict)

    def add(self, source: str, prefix: Sequence[str], section: str, table: Any) -> None:
        """Lay a table over what is there, field by field within a name; ``source`` is told in errors."""
        if not isinstance(table, dict):
            where = ".".join(prefix)
            self.problem(source, where, "not_a_table", f"holds no names; {_form(source, section)}")
            return
        merged = self.tables.setdefault(section, {})
        for name, given in table.items():
            fields, path = given, ".".join([*prefix, name])
            if isinstance(given, dict) and section in _FIELDS and "name" in given:
                self.problem(
                    source, f"{path}.name", "name_twice", f"the name is {name}; leave this field out"
                )
                fields = {key: value for key, value in given.items() if key != "name"}
            former = merged.get(name)
            if isinstance(former, dict) and isinstance(fields, dict):
                fields = {**former, **fields}
            merged[name] = fields
            self._origins[(section, name)] = (source, path)
            for key in given if isinstance(given, dict) else ():
                self._origins[(section, name, key)] = (source, f"{path}.{key}")

    def problem(self, source: str, where: str, code: str, message: str) -> None:
        """Note what could not be read."""
        place = f"{source}: {where}" if where else source
        self.problems.append(FieldError(field=place, code=code, message=message))

    def describe(self, loc: Sequence[Any], code: str, message: str) -> FieldError:
        """Say where what pydantic found at this place was written, and what may stand there."""
        section, *rest = loc
        path = [part for part in rest if part != "[key]"]
        depth = 2 if (section, *path[:2]) in self._origins else 1
        source, where = self._origins.get((section, *path[:depth]), (f"TIDINGS_{section.upper()}", ""))
        inner = path[depth:]
        if code == "extra_forbidden":
            message = _unknown(str(path[-1]), (name for name in _FIELDS[section] if name != "name"))
        elif code in {"model_type", "model_attributes_type"}:
            message = f"holds no fields; {_form(source, section)}"
        elif inner == ["name"]:
            inner, message = [], "is no name; write it with letters, digits, '.', '_' and '-'"
        place = ".".join([where, *map(str, inner)])
        return FieldError(field=f"{source}: {place}", code=code, message=message)


_EXAMPLES: Mapping[str, tuple[str, str, Any]] = {
    "queues": ("ai", "rate_per_owner", "10/min"),
    "profiles": ("films", "queues", ["films"]),
    "dependencies": ("openai", "failures", 5),
    "schedules": ("nightly", "cron", "0 3 * * *"),
}


def _form(source: str, section: str) -> str:
    name, key, value = _EXAMPLES[section]
    if source.startswith("TIDINGS_"):
        return f"write it like {json.dumps({name: {key: value}})}"
    return f"write it like [{section}.{name}], and below it {key} = {json.dumps(value)}"


def read_declared(env: Mapping[str, str], config: Path | None) -> Declared:
    """Read the file and the variables; a variable wins over the file, per field within a name.

    Args:
        config: the file that is read where it is there, unless ``TIDINGS_CONFIG_FILE`` names one that must be.
    """
    found = Declared()
    named = env.get("TIDINGS_CONFIG_FILE")
    path = Path(named).expanduser() if named else config
    if path is not None:
        _read_file(found, path, must_be_there=bool(named))
    for section in SECTIONS:
        name = f"TIDINGS_{section.upper()}"
        if not env.get(name):
            continue
        try:
            table = json.loads(env[name])
        except (ValueError, RecursionError) as error:
            at = (
                f" (line {error.lineno}, column {error.colno})"
                if isinstance(error, json.JSONDecodeError)
                else ""
            )
            found.problem(name, "", "not_json", f"is no JSON{at}; {_form(name, section)}")
        else:
            found.add(name, [], section, table)
    return found


def _read_file(found: Declared, path: Path, *, must_be_there: bool) -> None:
    source = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            found.problem(
                source, "", "too_large", f"has more than {_MAX_FILE_BYTES} bytes; is it the right file?"
            )
            return
        tables = tomllib.loads(data.decode("utf-8"))
    except FileNotFoundError:
        if must_be_there:
            message = f"there is no file {source}; correct the path, or unset it for ./tidings.toml"
            found.problem("TIDINGS_CONFIG_FILE", "", "missing", message)
    except OSError as error:
        found.problem(source, "", "unreadable", f"cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        found.problem(source, "", "unreadable", "cannot be read: it is not UTF-8")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found.problem(source, "", "not_toml", f"is no TOML: {error}; see https://toml.io")
    else:
        for section, table in tables.items():
            if section in SECTIONS:
                found.add(source, [section], section, table)
            else:
                found.problem(source, section, "unknown_setting", _unknown(section, SECTIONS))


def _unknown(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"unknown; did you mean {near[0]}?" if near else f"unknown; known are {', '.join(names)}"
