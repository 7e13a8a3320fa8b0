"""Errors as RFC 9457 problem documents: every refusal of every route, and of no route, leaves through here."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from tidings.protocol.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    PayloadTooLarge,
    TidingsError,
    Unauthenticated,
    UnsupportedMediaType,
)
from tidings_tasks.logs import current_request_id

from .auth import TokenMissing
from .request_ids import request_id_of

__all__ = ["PROBLEM_JSON", "answer_problems", "problem_response"]

_log = logging.getLogger(__name__)

PROBLEM_JSON: Final = "application/problem+json"
_RETRY_AFTER_S: Final = 1.0

_HTTP_ERRORS: Final[Mapping[int, type[TidingsError]]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    406: NotAcceptable,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
}


def problem_response(error: TidingsError, request_id: str) -> web.Response:
    """Make the answer for an error, with the headers its status asks for."""
    headers = {"Cache-Control": "no-store"}
    if error.retry_after_s is not None or error.temporary:
        wait_s = _RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
    if isinstance(error, TokenMissing):
        headers["WWW-Authenticate"] = 'Bearer realm="tidings"'
    elif error.status == 401:
        headers["WWW-Authenticate"] = (
            f'Bearer realm="tidings", error="invalid_token", error_description="{_quotable(error.detail)}"'
        )
    elif error.status == 403:
        headers["WWW-Authenticate"] = 'Bearer realm="tidings", error="insufficient_scope"'
    return web.Response(
        body=orjson.dumps(error.to_problem(request_id)),
        status=error.status,
        headers=headers,
        content_type=PROBLEM_JSON,
    )


@web.middleware
async def answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into a problem document. What was not foreseen is logged and told to nobody."""
    request_id = request_id_of(request)
    current_request_id.set(request_id)
    try:
        return await handler(request)
    except TidingsError as error:
        if error.status == 500:
            return _answer_mistake(request, request_id)
        if error.status > 500:
            _log.warning("%s %s: %s", request.method, request.path, error)
        return problem_response(error, request_id)
    except web.HTTPException as answer:
        if answer.status < 400:
            raise
        return _from_http_error(answer, request_id)
    except web.RequestPayloadError:
        return problem_response(BadRequest("the request's body did not arrive whole"), request_id)
    except ConnectionError:
        raise  # the client went away; there is nobody to answer
    except Exception:
        return _answer_mistake(request, request_id)


def _answer_mistake(request: web.Request, request_id: str) -> web.Response:
    _log.exception("%s %s failed", request.method, request.path)
    detail = "the server made a mistake; quote the request id when you report it"
    return problem_response(InternalError(detail), request_id)


def _from_http_error(answer: web.HTTPException, request_id: str) -> web.Response:
    kind = _HTTP_ERRORS.get(answer.status)
    if kind is None:
        kind = BadRequest if answer.status < 500 else InternalError
    detail = ""
    if isinstance(answer, web.HTTPNotFound):
        detail = "there is nothing at this path; /api/openapi.json lists what there is"
    elif isinstance(answer, web.HTTPMethodNotAllowed):
        detail = f"use {', '.join(sorted(answer.allowed_methods))}"
    response = problem_response(kind(detail), request_id)
    if allow := answer.headers.get("Allow"):
        response.headers["Allow"] = allow
    return response


def _quotable(text: str) -> str:
    """Make ``text`` fit a quoted header value (RFC 6750 §3 allows ASCII without quotes and backslashes)."""
    return re.sub(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]", "'", text)
