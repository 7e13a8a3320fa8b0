"""CORS: the configured origins of other sites may call, and nobody else's pages (Fetch standard §3.2)."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from .context import SETTINGS

__all__ = ["add_cors_headers", "answer_preflight"]

_METHODS: Final = "GET, HEAD, POST, DELETE"
_REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Range, X-Request-ID"
)
_EXPOSED_HEADERS: Final = (
    "Content-Disposition, ETag, Idempotent-Replayed, Location, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, "
    "Retry-After, X-Request-ID"
)
_MAX_AGE_S: Final = 600
_SOCKET_PATH: Final = "/socket.io"


@web.middleware
async def answer_preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer the question a browser asks before a call from another site."""
    if (
        request.method == "OPTIONS"
        and "Origin" in request.headers
        and "Access-Control-Request-Method" in request.headers
        and not _is_socket(request)
    ):
        response = web.Response(status=204)
        if _is_allowed(request):
            response.headers["Access-Control-Allow-Methods"] = _METHODS
            response.headers["Access-Control-Allow-Headers"] = _REQUEST_HEADERS
            response.headers["Access-Control-Max-Age"] = str(_MAX_AGE_S)
        return response
    return await handler(request)


async def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Let the pages of an allowed origin read the answer. Socket.IO answers for itself. For ``on_response_prepare``."""
    if not request.app[SETTINGS].cors_origins or _is_socket(request):
        return
    vary = response.headers.get("Vary")
    response.headers["Vary"] = f"{vary}, Origin" if vary else "Origin"
    if _is_allowed(request):
        # Callers are known by a token, not by cookies, so credentials are never allowed.
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS


def _is_allowed(request: web.Request) -> bool:
    origin = request.headers.get("Origin")
    allowed = request.app[SETTINGS].cors_origins
    return origin is not None and (origin in allowed or "*" in allowed)


def _is_socket(request: web.Request) -> bool:
    return request.path.startswith(_SOCKET_PATH)
