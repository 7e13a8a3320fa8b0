"""JSON bodies: bounded while they are read, strict when they are parsed, validated against a model."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final, NoReturn, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from tidings.protocol.errors import BadRequest, FieldError, PayloadTooLarge, UnsupportedMediaType

from ..context import SETTINGS
from .faults import field_errors, invalid_fields

__all__ = ["read_bounded", "read_json", "read_optional_json"]

B = TypeVar("B", bound=BaseModel)

_READ_TIMEOUT_S: Final = 30.0
# orjson turns an integer beyond 64 bits into a float without a word, so what may be one is looked at again.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


async def read_json(request: web.Request, model: type[B]) -> tuple[B, Any]:
    """Read the request's body; return the model and the JSON value it was made from.

    Raises:
        UnsupportedMediaType: it is not declared as plain ``application/json``.
        PayloadTooLarge: it exceeds ``max_body_bytes``; reading stopped there.
        BadRequest: it is no JSON, or did not arrive in 30 s.
        InvalidInput: it is not what ``model`` accepts.
    """
    _check_declared(request)
    return parse_json(await read_bounded(request), model)


async def read_optional_json(request: web.Request, model: type[B]) -> B:
    """Read a body that may be left out; then the model's defaults hold. Raises as ``read_json`` does."""
    text = await read_bounded(request)
    if not text:
        return model()
    _check_declared(request)
    return parse_json(text, model)[0]


def parse_json(text: bytes, model: type[B]) -> tuple[B, Any]:
    """Parse and validate untrusted text; see ``read_json``."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        _refuse_json(str(error), error)
    try:
        # The text, not the value: only so does strict validation take a date from a string and nothing else.
        body = model.model_validate_json(text, strict=True)
    except ValidationError as error:
        entries = field_errors(error, model)
        if entries[0].code == "json_invalid":
            _refuse_json(entries[0].message, error)
        raise invalid_fields(entries) from error
    # Last, since pydantic has bounded the depth by now.
    if _LONG_NUMBER.search(text):
        _refuse_huge_numbers(text)
    return body, value


async def read_bounded(request: web.Request) -> bytes:
    """Read the whole body, at most ``max_body_bytes`` of it. Raises as ``read_json`` does."""
    bound = request.app[SETTINGS].max_body_bytes
    too_large = PayloadTooLarge(f"a request may have at most {bound:,} bytes")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without a Content-Encoding")
    if request.content_length is not None and request.content_length > bound:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_READ_TIMEOUT_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > bound:
                    raise too_large
    except TimeoutError as error:
        raise BadRequest(f"the body did not arrive within {_READ_TIMEOUT_S:.0f} s") from error
    return bytes(body)


def _check_declared(request: web.Request) -> None:
    declared = request.headers.get("Content-Type", "")
    if request.content_type != "application/json" or "Content-Type" not in request.headers:
        raise UnsupportedMediaType(f"send JSON with `Content-Type: application/json`, not {declared[:80]!r}")
    if (request.charset or "utf-8").lower().replace("_", "-") not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("JSON is sent in UTF-8")


def _refuse_huge_numbers(text: bytes) -> None:
    def check(digits: str) -> int:
        if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
            _refuse_json("an integer has more than 64 bits; send it as a string", None)
        return 0

    json.loads(text, parse_int=check)


def _refuse_json(reason: str, cause: Exception | None) -> NoReturn:
    raise BadRequest(
        f"the body is no acceptable JSON: {reason}",
        errors=[
            FieldError(field="body", code="json_invalid", message=f"{reason}; send one JSON object in UTF-8")
        ],
    ) from cause
