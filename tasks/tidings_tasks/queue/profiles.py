"""Worker profiles: which queues a process serves, and how many jobs it runs at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from .queues import NAME_PATTERN

__all__ = ["BUILT_IN_PROFILES", "Profile", "overlay_profiles"]


class Profile(BaseModel):
    """What a worker is started as, by ``--profile`` or ``TIDINGS_WORKER_PROFILE``.

    ``queues``: those it serves; None: every queue. ``concurrency``: the most jobs at once in one process; None: as
    ``WORKER_CONCURRENCY`` says, which overrides the number of any profile.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=NAME_PATTERN)
    queues: tuple[Annotated[str, Field(pattern=NAME_PATTERN)], ...] | None = Field(None, min_length=1)
    concurrency: int | None = Field(None, ge=1, le=10_000)


BUILT_IN_PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                name="primary",
                queues=("critical", "emails", "webhooks", "reports", "integrations", "default"),
                concurrency=10,
            ),
            Profile(name="document", queues=("documents", "exports"), concurrency=8),
            Profile(name="ai", queues=("ai", "embeddings"), concurrency=5),
            Profile(name="scheduled", queues=("scheduled", "maintenance"), concurrency=1),
            Profile(name="all"),
        )
    }
)
"""Every installation has these profiles."""


def overlay_profiles(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Lay what is declared over the built-in profiles, field by field; not validated yet."""
    made: dict[str, Any] = dict(BUILT_IN_PROFILES)
    for name, fields in declared.items():
        base = dict(made[name]) if name in made else {"name": name}
        made[name] = {**base, **fields} if isinstance(fields, Mapping) else fields
    return made
