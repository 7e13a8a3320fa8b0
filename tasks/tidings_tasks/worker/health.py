"""The worker's own HTTP port: ``/health``, ``/health/live``, ``/health/ready``, ``/health/detailed`` and ``/metrics``."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tidings.protocol.errors import FieldError

from ..settings import SettingsError
from .condition import Condition

__all__ = ["serve_health"]

_SHUTDOWN_S = 0.5


@asynccontextmanager
async def serve_health(host: str, port: int, condition: Condition) -> AsyncIterator[int]:
    """Serve until the context is left; gives the port, which matters where 0 was asked for.

    The answers have the form of the server's: ``status`` is ``ok`` or ``unavailable``, ``reasons`` says why.

    Raises:
        SettingsError: the address cannot be bound.
    """

    async def live(_: web.Request) -> web.Response:
        return _answer(condition.why_not_live())

    async def ready(_: web.Request) -> web.Response:
        return _answer(condition.why_not_ready())

    async def detailed(_: web.Request) -> web.Response:
        return _answer(condition.why_not_ready(), **condition.facts())

    async def show_metrics(_: web.Request) -> web.Response:
        condition.update_gauges()
        return web.Response(
            body=condition.metrics.render(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    app = web.Application()
    app.router.add_get("/health", ready)
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/health/detailed", detailed)
    app.router.add_get("/metrics", show_metrics)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise _refuse(host, port, error) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _refuse(host: str, port: int, error: OSError) -> SettingsError:
    reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
    message = (
        f"port {port} on {host} {reason}; set TIDINGS_WORKER_PORT to another one, or to 0 for any free one"
    )
    found = FieldError(field="TIDINGS_WORKER_PORT", code="port", message=message)
    return SettingsError("the settings are not valid:", errors=[found])


def _answer(reasons: list[str], **facts: Any) -> web.Response:
    body = {"status": "unavailable" if reasons else "ok", "reasons": reasons} | facts
    return web.json_response(body, status=503 if reasons else 200)
