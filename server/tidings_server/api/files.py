"""Owned files: taken in as multipart while they are written, given out as attachments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from tidings.protocol import FileInfo
from tidings.protocol.errors import (
    BadRequest,
    FileMissing,
    InvalidInput,
    PayloadTooLarge,
    RateLimited,
    UnsupportedMediaType,
)
from tidings_tasks.files import FileStore, StoredFile, content_disposition

from ..context import FILES, LIMITER
from .answers import json_answer
from .examples import FILE
from .faults import invalid
from .route import Answer, HeaderField, Route, identity_of

__all__ = ["ROUTES"]

T = TypeVar("T")

_CHUNK_BYTES: Final = 262_144
_READ_TIMEOUT_S: Final = 30.0
_UPLOAD_TIMEOUT_S: Final = 900.0
# What boundaries and part headers may add to the file itself.
_FRAME_BYTES: Final = 65_536


async def upload(request: web.Request) -> web.StreamResponse:
    """Keep the one file of a form. It appears whole, or not at all."""
    caller = identity_of(request)
    allowance = request.app[LIMITER].take(caller.tenant.scope)
    files = request.app[FILES]
    if request.content_type != "multipart/form-data":
        raise UnsupportedMediaType("send the file as multipart/form-data, in a part named `file`")
    if request.content_length is not None and request.content_length > files.max_file_bytes + _FRAME_BYTES:
        raise PayloadTooLarge(f"a file may have at most {files.max_file_bytes:,} bytes")
    try:
        async with asyncio.timeout(_UPLOAD_TIMEOUT_S):
            stored = await _take_in(request, files, caller.subject, caller.org)
    except TimeoutError as error:
        raise BadRequest("the upload did not arrive in time") from error
    headers = allowance.headers() | {"Location": stored.info.url}
    return json_answer(stored.info.model_dump(mode="json"), status=201, headers=headers)


async def _take_in(request: web.Request, files: FileStore, owner: str, org: str | None) -> StoredFile:
    try:
        form = await request.multipart()
        part = await _next_part(form)
        if part is None or part.name != "file":
            raise invalid("file", "missing", "Send the file in a part named `file`, and nothing else")
        media_type = part.headers.get("Content-Type", "application/octet-stream")
        writer = await asyncio.to_thread(files.create, owner, org, part.filename or "file", media_type)
        with writer:
            while chunk := await _in_time(part.read_chunk(_CHUNK_BYTES)):
                await asyncio.to_thread(writer.write, bytes(chunk))
            if await _next_part(form) is not None:
                raise invalid("file", "too_many_parts", "Send one part only")
            return await asyncio.to_thread(writer.finish)
    except (ValueError, AssertionError, HttpProcessingError, web.HTTPException) as error:
        raise BadRequest("the body is no well-formed multipart/form-data") from error


async def _next_part(form: MultipartReader) -> BodyPartReader | None:
    part = await _in_time(form.next())
    if part is not None and not isinstance(part, BodyPartReader):
        raise invalid("file", "nested_multipart", "Send the file itself, not another multipart body")
    return part


async def _in_time(read: Awaitable[T]) -> T:
    async with asyncio.timeout(_READ_TIMEOUT_S):
        return await read


async def download(request: web.Request) -> web.StreamResponse:
    """Send a file, whole or in part, as an attachment that no browser runs."""
    files = request.app[FILES]
    stored = await asyncio.to_thread(files.find, request.match_info["id"])
    if stored is None or not identity_of(request).may_read_of(stored.owner, stored.org):
        raise FileMissing
    return web.FileResponse(
        stored.path,
        headers={
            "Content-Type": stored.info.media_type,
            "Content-Disposition": content_disposition(stored.info.name),
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "Cache-Control": "private, no-cache",
            "Vary": "Authorization",
        },
    )


ROUTES = (
    Route(
        method="POST",
        path="/api/files",
        name="uploadFile",
        handle=upload,
        tag="files",
        summary="Upload a file",
        description="The one part of the form is named `file`. Its name is cleaned; its size is bounded.",
        body_media_type="multipart/form-data",
        body_schema={
            "type": "object",
            "required": ["file"],
            "additionalProperties": False,
            "properties": {"file": {"type": "string", "contentMediaType": "application/octet-stream"}},
        },
        answers=(
            Answer(
                status=201,
                description="The file is kept.",
                model=FileInfo,
                example=FILE,
                headers=(HeaderField("Location", "Where the file is."),),
            ),
        ),
        errors=(BadRequest, InvalidInput, PayloadTooLarge, UnsupportedMediaType, RateLimited),
    ),
    Route(
        method="GET",
        path="/api/files/{id}",
        name="downloadFile",
        handle=download,
        tag="files",
        summary="Download a file",
        description="Always as an attachment. `Range`, `If-None-Match` and `If-Modified-Since` are honoured.",
        headers=(HeaderField("Range", "The part of the file that is wanted, such as `bytes=0-1023`."),),
        answers=(
            Answer(description="The file.", media_type="*/*"),
            Answer(status=206, description="The part that was asked for.", media_type="*/*"),
            Answer(status=304, description="The file has not changed."),
            Answer(status=416, description="The file has no such part."),
        ),
        errors=(FileMissing,),
    ),
)
