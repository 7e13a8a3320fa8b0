"""The worker's own HTTP port: ``/health/live``, ``/health/ready`` and ``/metrics``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from .metrics import Metrics

__all__ = ["serve_health"]


@asynccontextmanager
async def serve_health(
    host: str, port: int, *, is_ready: Callable[[], bool], update: Callable[[], None], metrics: Metrics
) -> AsyncIterator[int]:
    """Serve until the context is left; gives the port, which matters where 0 was asked for.

    Args:
        update: brings the gauges up to date before they are shown.
    """

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def ready(_: web.Request) -> web.Response:
        if is_ready():
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not_ready"}, status=503)

    async def show_metrics(_: web.Request) -> web.Response:
        update()
        return web.Response(
            body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    app = web.Application()
    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/metrics", show_metrics)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
