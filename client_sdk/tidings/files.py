"""Moving owned files: what `Client.upload` and `Client.download` do."""

from __future__ import annotations

import asyncio
import io
import mimetypes
import os
import re
import secrets
from pathlib import Path

import aiohttp

from .http import CONNECT_TIMEOUT_S, Http, read_answer
from .protocol.errors import FileMissing, PayloadTooLarge
from .protocol.models import FileInfo

__all__ = ["download", "download_to", "upload"]

_FILE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_CHUNK_BYTES = 1 << 18


async def upload(
    http: Http, source: Path | str | bytes, *, name: str | None, media_type: str | None
) -> FileInfo:
    """Send a file as a form's ``file`` field."""
    if isinstance(source, bytes):
        content, file_name = source, name or "upload.bin"
    else:
        path = Path(source)
        content, file_name = await asyncio.to_thread(path.read_bytes), name or path.name
    kind = media_type or mimetypes.guess_type(file_name)[0] or "application/octet-stream"

    def form() -> aiohttp.FormData:
        data = aiohttp.FormData(quote_fields=False)  # names as UTF-8, as browsers send them
        data.add_field("file", io.BytesIO(content), filename=file_name, content_type=kind)
        return data

    return read_answer(FileInfo, await http.call("POST", "api/files", form=form))


async def download(http: Http, file_id: str, max_bytes: int) -> bytes:
    """Read a file into memory."""
    content = bytearray()
    async with http.exchange("GET", _path(file_id), timeout=_timeout(http)) as response:
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            content += chunk
            if len(content) > max_bytes:
                raise PayloadTooLarge(
                    f"file {file_id} is over {max_bytes} bytes: write it to disk with download_to()"
                )
    return bytes(content)


async def download_to(http: Http, file_id: str, target: Path) -> Path:
    """Write a file beside ``target`` and rename it when it is complete."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    handle = await asyncio.to_thread(part.open, "xb")
    try:
        async with http.exchange("GET", _path(file_id), timeout=_timeout(http)) as response:
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                await asyncio.to_thread(handle.write, chunk)
        await asyncio.to_thread(handle.close)
        os.replace(part, target)
    finally:
        handle.close()
        part.unlink(missing_ok=True)
    return target


def _path(file_id: str) -> str:
    if _FILE_ID.fullmatch(file_id) is None:
        raise FileMissing(f"{file_id[:80]!r} is not a file id")
    return f"api/files/{file_id}"


def _timeout(http: Http) -> aiohttp.ClientTimeout:
    # A large file may take its time; silence may not.
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=http.timeout_s)
