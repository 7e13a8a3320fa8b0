"""A call on the store as a plain value; the asynchronous and the synchronous store run the same ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Command"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """A call of one script on one shard. ``parse`` reads the raw reply."""

    script: str
    shard: int
    args: Sequence[bytes | str | int]
    parse: Callable[[Any], T]
