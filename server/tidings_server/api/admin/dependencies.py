"""The circuit breakers of named dependencies that are not at rest."""

from __future__ import annotations

from aiohttp import web

from tidings.protocol.admin import Dependencies
from tidings_tasks.store import commands, iso_time
from tidings_tasks.store.limits import BreakerInfo, BreakerState

from ...context import STORE
from ..answers import json_answer
from ..examples import AT
from ..route import Answer, Route
from .shards import over_shards

__all__ = ["ROUTES"]

_WORST = (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)


async def list_all(request: web.Request) -> web.StreamResponse:
    """Answer each dependency as it stands in the shard where it stands worst."""
    merged: dict[str, BreakerInfo] = {}
    for found in await over_shards(request.app[STORE], commands.read_breakers):
        for breaker in found:
            known = merged.get(breaker.name)
            if known is None or _badness(breaker) > _badness(known):
                merged[breaker.name] = breaker
    return json_answer({"dependencies": [_view(merged[name]) for name in sorted(merged)]})


def _badness(breaker: BreakerInfo) -> tuple[int, int, int]:
    return _WORST.index(breaker.state), breaker.open_until_ms or 0, breaker.failures


def _view(breaker: BreakerInfo) -> dict[str, object]:
    return {
        "name": breaker.name,
        "state": breaker.state.value,
        "failures": breaker.failures,
        "open_until": None if breaker.open_until_ms is None else iso_time(breaker.open_until_ms),
    }


ROUTES = (
    Route(
        method="GET",
        path="/api/admin/dependencies",
        name="listDependencies",
        handle=list_all,
        tag="admin",
        summary="List dependencies that have failed",
        description="While a dependency's circuit is open its jobs wait, without using up their attempts.",
        answers=(
            Answer(
                description="The circuits that are not closed, or have counted failures.",
                model=Dependencies,
                example={
                    "dependencies": [{"name": "openai", "state": "open", "failures": 5, "open_until": AT}]
                },
            ),
        ),
        is_admins=True,
    ),
)
