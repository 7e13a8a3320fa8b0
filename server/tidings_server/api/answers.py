"""JSON answers: encoded once, with what the store keeps as JSON passed through, and private to the caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

__all__ = ["json_answer"]


def json_answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Encode ``value``, which may hold ``orjson.Fragment``. Unless ``headers`` says otherwise, nobody may keep it."""
    response = web.Response(body=orjson.dumps(value), status=status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    if headers:
        response.headers.update(headers)
    return response
