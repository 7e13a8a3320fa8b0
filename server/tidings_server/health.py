"""Health: is the process alive, can it serve, and how does it do. Never a secret, and never a wait without a bound."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, Field

import tidings
from tidings.protocol.errors import StoreUnavailable

from .api.answers import json_answer
from .api.route import Answer, Route
from .context import GATEWAY, INTAKE, LIFE, MODE, RELAY, STORE, STREAMS, UPKEEP, Mode

__all__ = ["ROUTES", "Probe"]

_PING_TIMEOUT_S = 1.0
_REMEMBERED_S = 0.5


class Health(BaseModel):
    """Whether the server is well. ``reasons`` says what is not."""

    status: Literal["ok", "unavailable"]
    reasons: list[str] = Field(default_factory=list, examples=[["store_unavailable"]])


class StoreHealth(BaseModel):
    """How the job store answers."""

    mode: Mode
    reachable: bool
    latency_ms: float | None


class DetailedHealth(Health):
    """How the server does."""

    version: str
    uptime_s: float
    store: StoreHealth
    relay_hearing: bool
    watched_logs: int = Field(description="Job and feed logs that somebody follows through this server.")
    socket_connections: int
    open_streams: int = Field(description="SSE streams and long-polls.")
    submissions_waiting: int
    upkeep_failures: int


class Probe:
    """Pings the store, at most twice a second whoever asks: health needs no token, so it must cost nothing."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._at = float("-inf")
        self._latency_ms: float | None = None

    async def latency_ms(self, app: web.Application) -> float | None:
        """Return how long the store took to answer, or None when it did not within a second."""
        async with self._lock:
            if time.monotonic() - self._at > _REMEMBERED_S:
                self._latency_ms = await _ping(app)
                self._at = time.monotonic()
            return self._latency_ms


async def _ping(app: web.Application) -> float | None:
    began_at = time.monotonic()
    try:
        async with asyncio.timeout(_PING_TIMEOUT_S):
            await app[STORE].ping()
    except (StoreUnavailable, TimeoutError):
        return None
    return round((time.monotonic() - began_at) * 1000, 3)


PROBE = web.AppKey("probe", Probe)


async def live(request: web.Request) -> web.StreamResponse:
    """Answer that the process serves requests. A restart would not mend anything else."""
    return json_answer({"status": "ok", "reasons": []})


async def ready(request: web.Request) -> web.StreamResponse:
    """Answer whether this server can do its work now."""
    reasons = await _reasons(request.app)
    return _answer(reasons, {})


async def detailed(request: web.Request) -> web.StreamResponse:
    """Answer how the server does, in numbers."""
    app = request.app
    latency_ms = await app[PROBE].latency_ms(app)
    mode: str = app[MODE]
    facts = {
        "version": tidings.__version__,
        "uptime_s": round(app[LIFE].uptime_s, 3),
        "store": {"mode": mode, "reachable": latency_ms is not None, "latency_ms": latency_ms},
        "relay_hearing": app[RELAY].is_hearing,
        "watched_logs": app[RELAY].watched,
        "socket_connections": app[GATEWAY].connections,
        "open_streams": len(app[STREAMS]),
        "submissions_waiting": app[INTAKE].waiting,
        "upkeep_failures": app[UPKEEP].failures,
    }
    return _answer(await _reasons(app), facts)


async def _reasons(app: web.Application) -> list[str]:
    reasons = []
    if app[LIFE].is_draining:
        reasons.append("draining")
    if await app[PROBE].latency_ms(app) is None:
        reasons.append("store_unavailable")
    if not app[RELAY].is_hearing:
        reasons.append("relay_deaf")
    return reasons


def _answer(reasons: list[str], facts: dict[str, object]) -> web.Response:
    body = {"status": "unavailable" if reasons else "ok", "reasons": reasons} | facts
    return json_answer(body, status=503 if reasons else 200)


def _routes(prefix: str, suffix: str) -> tuple[Route, ...]:
    well = "The server is well."
    unwell = "It is not; `reasons` says why: `draining`, `store_unavailable`, `relay_deaf`."
    states = (
        Answer(description=well, model=Health),
        Answer(status=503, description=unwell, model=Health),
    )
    return (
        Route(
            method="GET",
            path=f"{prefix}/health",
            name=f"readHealth{suffix}",
            handle=ready,
            tag="health",
            summary="Tell whether the server is well",
            description="The same as `/health/ready`.",
            answers=states,
            is_public=True,
        ),
        Route(
            method="GET",
            path=f"{prefix}/health/live",
            name=f"readLiveness{suffix}",
            handle=live,
            tag="health",
            summary="Tell whether the process is alive",
            answers=(Answer(description="It is.", model=Health),),
            is_public=True,
        ),
        Route(
            method="GET",
            path=f"{prefix}/health/ready",
            name=f"readReadiness{suffix}",
            handle=ready,
            tag="health",
            summary="Tell whether to send requests here",
            answers=states,
            is_public=True,
        ),
        Route(
            method="GET",
            path=f"{prefix}/health/detailed",
            name=f"readDetailedHealth{suffix}",
            handle=detailed,
            tag="health",
            summary="Tell how the server does",
            answers=(
                Answer(description=well, model=DetailedHealth),
                Answer(status=503, description=unwell, model=DetailedHealth),
            ),
            is_public=True,
        ),
    )


ROUTES = (*_routes("", ""), *_routes("/api", "UnderApi"))
