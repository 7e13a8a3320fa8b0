"""Monitoring of requests: counted, timed, logged by one line each; and the page that Prometheus reads."""

from __future__ import annotations

import logging
import time
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from tidings.protocol.errors import Forbidden

from .api.route import Answer, Route
from .auth import ADMIN, bearer_token
from .connection import Connection
from .context import AUTHENTICATOR, METRICS, SETTINGS
from .peers import is_local
from .streams import WAITED

__all__ = ["ROUTES", "monitor"]

_log = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Asked for every few seconds by orchestrators and scrapers, or many at a time by every page.
_HEALTH = ("/health", "/api/health")
_PROBED = (*_HEALTH, "/metrics", "/static")


@web.middleware
async def monitor(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Measure one request. The log names the path, never the query or a header, where a secret may be."""
    if isinstance(request.protocol, Connection):
        request.protocol.begin_request()
    began_at = time.monotonic()
    status = 499  # nginx's word for a client that did not wait for the answer
    try:
        response = await handler(request)
        status = response.status
        if not request.content.is_eof() and not response.prepared:
            _stop_taking(request, response)
        return response
    except web.HTTPException as answer:
        status = answer.status
        raise
    finally:
        took_s = time.monotonic() - began_at
        route = _route_of(request)
        method = request.method if request.method in _METHODS else "other"
        metrics = request.app[METRICS]
        metrics.requests.labels(method, route, str(status)).inc()
        if status != 101 and WAITED not in request:
            metrics.request_seconds.labels(method, route).observe(took_s)
        # A health answer of 503 is news of the process, which logs its reason where it arises.
        is_quiet = (status < 400 and route.startswith(_PROBED)) or (
            status == 503 and route.startswith(_HEALTH)
        )
        _log.log(
            logging.DEBUG if is_quiet else logging.INFO, "%s %s %d", request.method, request.path, status,
            extra={"method": request.method, "path": request.path, "status": status, "took_ms": round(took_s * 1000, 1)},
        )  # fmt: skip


def _stop_taking(request: web.Request, response: web.StreamResponse) -> None:
    """Close the connection behind an answer that did not wait for the whole request.

    aiohttp reads on for a while, so that the client gets to see the answer; it must notice when the client leaves.
    """
    response.force_close()
    if isinstance(request.protocol, Connection):
        request.protocol.watch_loss(request.content.feed_eof)


def _route_of(request: web.Request) -> str:
    """The path of the route, with its parameters unfilled: a set that no caller can make larger."""
    resource = request.match_info.route.resource
    return "unmatched" if resource is None else resource.canonical


async def read_metrics(request: web.Request) -> web.StreamResponse:
    """Answer the metrics to a scraper on this machine, to an admin, or to all where the settings say so."""
    app = request.app
    if not app[SETTINGS].metrics_public and not is_local(request):
        headers = request.headers.getall("Authorization", [])
        if not headers or ADMIN not in app[AUTHENTICATOR].verify(bearer_token(headers)).scopes:
            raise Forbidden(
                "metrics are for this machine and for tokens with the scope `admin`; TIDINGS_METRICS_PUBLIC opens them"
            )
    return web.Response(
        body=app[METRICS].render(),
        headers={"Content-Type": app[METRICS].content_type, "Cache-Control": "no-store"},
    )


ROUTES = (
    Route(
        method="GET",
        path="/metrics",
        name="readMetrics",
        handle=read_metrics,
        tag="health",
        summary="Read the metrics of this server process",
        description=(
            "Prometheus text. For callers on the same machine that no proxy stands before, and for tokens with the "
            "scope `admin`; for all with the setting `metrics_public`."
        ),
        answers=(Answer(description="The metrics.", model=Any, media_type="text/plain"),),
        errors=(Forbidden,),
        is_public=True,
    ),
)
