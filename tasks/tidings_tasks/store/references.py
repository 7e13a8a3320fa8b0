"""References: where the input of a flow's step takes the result of another one, or a part of it.

``{"$result": "fetch"}`` stands for the whole result of the step ``fetch``; ``{"$result": "fetch.pages.0.url"}`` for what is
found in it along this path of members and places. The store hands the results over with the claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

__all__ = ["MARK", "Place", "fill", "find_references"]

MARK = "$result"
_MAX_DEPTH = 64

Place = tuple[str | int, ...]


def find_references(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Yield where in a JSON value references stand, and what they say: the name of a step, and maybe a path."""
    if isinstance(value, Mapping):
        if len(value) == 1 and isinstance(value.get(MARK), str):
            yield place, value[MARK]
            return
        items: Iterator[tuple[str | int, Any]] = iter(value.items())
    elif isinstance(value, list | tuple):
        items = iter(enumerate(value))
    else:
        return
    if len(place) < _MAX_DEPTH:
        for key, part in items:
            yield from find_references(part, (*place, key))


def fill(value: Any, results: Mapping[str, bytes | None]) -> Any:
    """Return the value with each reference replaced by what it stands for.

    Raises:
        ValueError: a result is not there, or has no such part; the message says where and which.
    """
    decoded: dict[str, Any] = {}
    return _fill(value, (), results, decoded)


def _fill(value: Any, place: Place, results: Mapping[str, bytes | None], decoded: dict[str, Any]) -> Any:
    if len(place) > _MAX_DEPTH:
        return value
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get(MARK), str):
            return _look_up(value[MARK], place, results, decoded)
        return {key: _fill(part, (*place, key), results, decoded) for key, part in value.items()}
    if isinstance(value, list):
        return [_fill(part, (*place, at), results, decoded) for at, part in enumerate(value)]
    return value


def _look_up(
    reference: str, place: Place, results: Mapping[str, bytes | None], decoded: dict[str, Any]
) -> Any:
    name, *path = reference.split(".")
    where = ".".join(["input", *map(str, place)])
    if name not in decoded:
        text = results.get(name)
        if text is None:
            raise ValueError(f"{where}: the result of step {name!r} is not kept any more")
        decoded[name] = orjson.loads(text)
    found = decoded[name]
    for key in path:
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise ValueError(f"{where}: the result of step {name!r} has no {'.'.join(path)}")
    return found
