"""The server's application: every part with a lifetime is begun and ended here, in one order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from aiohttp import web

from tidings.protocol.errors import StoreUnavailable
from tidings_tasks.files import FileStore
from tidings_tasks.queue.limit_keeper import LimitKeeper
from tidings_tasks.registry import Registry
from tidings_tasks.schedules.scheduler import Scheduler
from tidings_tasks.settings import Settings
from tidings_tasks.store import Keyspace, Store

from .api.route import add_routes
from .api.routes import OPENAPI, ROUTES, encode
from .auth import Authenticator
from .connection import Runner
from .context import (
    AUTHENTICATOR,
    FILES,
    FORECAST,
    GATEWAY,
    INTAKE,
    LIFE,
    LIMITER,
    METRICS,
    MODE,
    REGISTRY,
    RELAY,
    SETTINGS,
    STORE,
    STREAMS,
    UPKEEP,
    Mode,
)
from .cors import add_cors_headers, answer_preflight
from .eta import Forecast
from .gateway import Gateway
from .health import PROBE, Probe
from .intake import Intake
from .life import Life
from .limits import Limiter
from .metrics import Metrics
from .monitoring import monitor
from .pages import Pages, find_static_dir
from .problems import answer_problems
from .relay import Relay
from .request_ids import REQUEST_ID_HEADER, request_id_of
from .streams import Streams
from .upkeep import Upkeep

__all__ = ["CONNECTION_OPTIONS", "build_app", "run_server"]

_log = logging.getLogger(__name__)

# A token may have 8 KiB, and must reach the code that can refuse a longer one with its reason.
CONNECTION_OPTIONS: Final[dict[str, Any]] = {
    "access_log": None,
    "auto_decompress": False,
    "keepalive_timeout": 75.0,
    "lingering_time": 2.0,
    "max_field_size": 16_384,
    "max_line_size": 16_384,
}


def build_app(
    settings: Settings,
    *,
    store_url: str,
    mode: Mode = "standalone",
    registry: Registry,
    files: FileStore | None = None,
) -> web.Application:
    """Build the application. It connects to nothing before it is started.

    Args:
        settings: must have ``jwt_secret``.
        store_url: the job store; with its password, if it has one.
        mode: how the store is run; told by ``/api/jobs/stats`` and ``/health/detailed``.
        registry: the job types that may be submitted.
        files: the file store; None opens the one in ``settings.data_dir``.

    Raises:
        ValueError: ``jwt_secret`` is not set.
    """
    app = web.Application(
        middlewares=[monitor, answer_problems, answer_preflight],
        client_max_size=settings.max_body_bytes,
        handler_args=dict(CONNECTION_OPTIONS),
    )
    metrics = Metrics()
    store = Store(
        store_url,
        Keyspace(settings.key_prefix, settings.shards),
        lease_s=settings.lease_s,
        timeout_s=settings.store_timeout_s,
    )
    authenticator = Authenticator(settings)
    relay = Relay(store)
    app[SETTINGS] = settings
    app[MODE] = mode
    app[LIFE] = Life()
    app[AUTHENTICATOR] = authenticator
    app[REGISTRY] = registry
    app[STORE] = store
    app[RELAY] = relay
    app[FORECAST] = Forecast(store, settings.queues)
    app[GATEWAY] = Gateway(settings, store, relay, authenticator)
    app[INTAKE] = Intake(store)
    app[LIMITER] = Limiter(settings.submissions_per_minute)
    app[METRICS] = metrics
    app[STREAMS] = Streams(
        max_open=settings.max_connections,
        max_per_subject=settings.max_streams,
        lasted=lambda kind, seconds: metrics.stream_seconds.labels(kind).observe(seconds),
    )
    app[UPKEEP] = Upkeep(store, lease_s=settings.lease_s)
    app[PROBE] = Probe()
    app[OPENAPI] = encode()
    _watch_gauges(app)

    app[GATEWAY].attach(app)
    add_routes(app, ROUTES)
    Pages(find_static_dir(settings.static_dir)).add_routes(app.router)
    app.on_response_prepare.append(_add_common_headers)
    app.on_response_prepare.append(add_cors_headers)
    # Begun in this order and ended in the opposite one: who uses the store ends before it.
    app.cleanup_ctx.extend(
        [
            _keep_files(files),
            _keep_store,
            _keep_limits,
            _keep_relay,
            _keep_upkeep,
            _keep_schedules,
            _keep_gateway,
            _keep_intake,
        ]
    )
    app.on_shutdown.append(_drain)
    return app


async def run_server(
    settings: Settings,
    *,
    store_url: str,
    mode: Mode = "standalone",
    registry: Registry,
    stop: asyncio.Event,
    ready: Callable[[str, int], None] | None = None,
) -> None:
    """Serve on ``settings.host`` and ``settings.port`` until ``stop`` is set, then end gracefully.

    At the end no connection is taken any more, clients are asked to go elsewhere, streams end with what they have, and
    running requests have ``settings.shutdown_grace_s`` seconds.

    Args:
        ready: told the host and the port that are really bound, once requests are taken.

    Raises:
        OSError: the address cannot be bound.
        StoreMismatch: the store belongs to an installation with another format or number of shards.
    """
    app = build_app(settings, store_url=store_url, mode=mode, registry=registry)
    runner = Runner(
        app, shutdown_timeout=settings.shutdown_grace_s, connection_options=dict(CONNECTION_OPTIONS)
    )
    try:
        await runner.setup()
        site = web.TCPSite(runner, settings.host, settings.port, reuse_address=True)
        await site.start()
        host, port = runner.addresses[0][:2]
        _log.info("listening", extra={"host": host, "port": port})
        if ready is not None:
            ready(host, port)
        await stop.wait()
        app[LIFE].begin_drain()
    finally:
        await runner.cleanup()


async def _add_common_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[REQUEST_ID_HEADER] = request_id_of(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    # aiohttp would tell its version, and Python's.
    response.headers["Server"] = "tidings"


async def _drain(app: web.Application) -> None:
    app[LIFE].begin_drain()
    app[STREAMS].drain()
    await app[GATEWAY].drain(app[SETTINGS].shutdown_grace_s)


def _keep_files(files: FileStore | None) -> Callable[[web.Application], AsyncIterator[None]]:
    async def keep(app: web.Application) -> AsyncIterator[None]:
        settings = app[SETTINGS]
        opened = files
        if opened is None:
            opened = await asyncio.to_thread(
                FileStore, settings.data_dir / "files", max_file_bytes=settings.max_file_bytes
            )
        app[FILES] = opened
        yield

    return keep


async def _keep_store(app: web.Application) -> AsyncIterator[None]:
    try:
        try:
            await app[STORE].ping()
        except StoreUnavailable as error:
            _log.warning("starting without the store: %s", error)
        yield
    finally:
        await app[STORE].aclose()


async def _keep_relay(app: web.Application) -> AsyncIterator[None]:
    await app[RELAY].start()
    yield
    await app[RELAY].aclose()


async def _keep_limits(app: web.Application) -> AsyncIterator[None]:
    keeper = LimitKeeper(app[STORE], app[SETTINGS], app[REGISTRY].dependencies)
    task = asyncio.create_task(keeper.run(), name="limits of the queues")
    task.add_done_callback(_log_end)
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("the limits of the queues are not kept: %s", error)


async def _keep_upkeep(app: web.Application) -> AsyncIterator[None]:
    app[UPKEEP].start()
    yield
    await app[UPKEEP].aclose()


async def _keep_schedules(app: web.Application) -> AsyncIterator[None]:
    # Workers fire schedules too. The server does for those whose workers are run by the stock `dramatiq` command.
    count = app[METRICS].count_schedule
    scheduler = Scheduler(app[STORE], app[REGISTRY], app[SETTINGS].queues, on_fired=count)
    task = asyncio.create_task(scheduler.run(), name="schedules")
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _keep_gateway(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[GATEWAY].aclose()


async def _keep_intake(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[INTAKE].aclose()


def _watch_gauges(app: web.Application) -> None:
    metrics = app[METRICS]
    metrics.watch("tidings_relay_hearing", "1 when published events arrive.", lambda: app[RELAY].is_hearing)
    metrics.watch("tidings_watched_logs", "Logs that somebody follows.", lambda: app[RELAY].watched)
    metrics.watch("tidings_socket_connections", "Socket.IO clients.", lambda: app[GATEWAY].connections)
    metrics.watch("tidings_open_streams", "SSE streams and long-polls.", lambda: len(app[STREAMS]))
    metrics.watch("tidings_submissions_waiting", "Submissions not stored yet.", lambda: app[INTAKE].waiting)
    metrics.watch("tidings_upkeep_failures", "Failed upkeep steps.", lambda: app[UPKEEP].failures)
