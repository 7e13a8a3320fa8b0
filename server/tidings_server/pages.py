"""The browser's files: the pages and modules of ``static/``, with headers that let nothing else run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from tidings.protocol.errors import NotFound

__all__ = ["PAGE_POLICY", "Pages", "find_static_dir"]

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Stated here, since what mimetypes guesses depends on the host's files.
_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


def find_static_dir(configured: Path | None) -> Path:
    """Return the configured directory, else the package's own, else a checkout's ``static/``. It may be missing."""
    if configured is not None:
        return configured
    packaged = Path(__file__).parent / "static"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "static"


class Pages:
    """Serves one directory. Only files of known types, and only those that really lie in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve ``/``, the documentation's page and ``/static/*``."""
        router.add_get("/", self._page("index.html"), name="index")
        router.add_get("/api/docs", self._page("api-docs.html"), name="api-docs")
        router.add_get("/static/{path:.+}", self._serve, name="static")

    def _page(self, name: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._send(name)

        return handle

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        return await self._send(request.match_info["path"])

    async def _send(self, name: str) -> web.StreamResponse:
        found = await asyncio.to_thread(self._find, name)
        if found is None:
            raise NotFound("there is no such file")
        return web.FileResponse(
            found,
            headers={
                "Content-Type": _MEDIA_TYPES[found.suffix],
                "Cache-Control": "no-cache",
                "Content-Security-Policy": PAGE_POLICY,
                "Cross-Origin-Opener-Policy": "same-origin",
                "Referrer-Policy": "no-referrer",
            },
        )

    def _find(self, name: str) -> Path | None:
        if "\0" in name:
            return None
        try:
            path = (self._directory / name).resolve()
            is_served = (
                path.is_relative_to(self._directory) and path.suffix in _MEDIA_TYPES and path.is_file()
            )
        except OSError:  # a name that is too long
            return None
        return path if is_served else None
