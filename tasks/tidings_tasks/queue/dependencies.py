"""Named dependencies of jobs, such as a model's API, and when the circuit to one opens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..store.limits import Breaker
from .queues import NAME_PATTERN

__all__ = ["Dependency", "breakers_of", "overlay_dependencies"]

_LONGEST_S = 86_400.0
_USUAL = Breaker()


class Dependency(BaseModel):
    """After so many ``failures`` within ``within_s`` its jobs are put off for ``open_s`` seconds; see ``Breaker``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=NAME_PATTERN)
    failures: int = Field(_USUAL.failures, ge=1, le=10_000)
    within_s: float = Field(_USUAL.within_s, gt=0, le=_LONGEST_S)
    open_s: float = Field(_USUAL.open_s, gt=0, le=_LONGEST_S)

    @property
    def breaker(self) -> Breaker:
        """What the store enforces."""
        return Breaker(self.failures, self.within_s, self.open_s)


def overlay_dependencies(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Name each declared dependency; not validated yet."""
    return {
        name: {"name": name, **fields} if isinstance(fields, Mapping) else fields
        for name, fields in declared.items()
    }


def breakers_of(dependencies: Mapping[str, Dependency], names: Iterable[str] = ()) -> dict[str, Breaker]:
    """Return the breakers of all declared dependencies and of these, as the store takes them."""
    return {name: Breaker() for name in names} | {name: d.breaker for name, d in dependencies.items()}
