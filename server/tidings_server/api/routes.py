"""All REST calls, and the document that describes them."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import orjson
from aiohttp import web

from .. import health, monitoring
from ..openapi import build_openapi
from . import admin, batch, cancelling, catalogue, events, feeds, files, jobs, listing, result, status, submit
from .route import Answer, Route

__all__ = ["OPENAPI", "ROUTES", "describe"]

OPENAPI: Final[web.AppKey[bytes]] = web.AppKey("openapi")


async def read_openapi(request: web.Request) -> web.StreamResponse:
    """Answer the OpenAPI document."""
    return web.Response(
        body=request.app[OPENAPI], content_type="application/json", headers={"Cache-Control": "no-cache"}
    )


def describe() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the whole REST interface, JSON-ready."""
    return build_openapi(ROUTES)


@cache
def encode() -> bytes:
    """Return the document as it is served; made once in a process."""
    return orjson.dumps(describe())


ROUTES: Final[tuple[Route, ...]] = (
    *submit.ROUTES,
    *batch.ROUTES,
    *cancelling.ROUTES,
    *listing.ROUTES,
    *catalogue.ROUTES,
    *jobs.ROUTES,
    *status.ROUTES,
    *result.ROUTES,
    *events.ROUTES,
    *feeds.ROUTES,
    *files.ROUTES,
    *admin.ROUTES,
    *health.ROUTES,
    *monitoring.ROUTES,
    Route(
        method="GET",
        path="/api/openapi.json",
        name="readOpenApi",
        handle=read_openapi,
        tag="catalogue",
        summary="Read this document",
        answers=(Answer(description="OpenAPI 3.1.", model=Any),),
        is_public=True,
    ),
)
