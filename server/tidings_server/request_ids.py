"""Request ids: the caller's own where it is well-formed, else a new one; for answers, problems and logs alike."""

from __future__ import annotations

import re
import secrets
from typing import Final

from aiohttp import web

__all__ = ["REQUEST_ID_HEADER", "choose_request_id", "request_id_of"]

REQUEST_ID_HEADER: Final = "X-Request-ID"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{8,64}")
_KEY: Final = web.RequestKey("request_id", str)


def choose_request_id(offered: str | None) -> str:
    """Return ``offered``, which is untrusted, when it is 8–64 of ``A–Z a–z 0–9 . _ -``; else a random id."""
    if offered is not None and _WELL_FORMED.fullmatch(offered):
        return offered
    return secrets.token_hex(16)


def request_id_of(request: web.BaseRequest) -> str:
    """Return the request's id, choosing it at the first call."""
    found = request.get(_KEY)
    if found is None:
        found = request[_KEY] = choose_request_id(request.headers.get(REQUEST_ID_HEADER))
    return found
