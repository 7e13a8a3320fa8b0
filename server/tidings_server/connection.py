"""A connection that tells when its client goes away, waits for none for ever, and answers rubbish with a problem."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tidings.protocol.errors import BadRequest, InternalError, TidingsError

from .problems import problem_response
from .request_ids import REQUEST_ID_HEADER, choose_request_id

__all__ = ["Connection", "Runner"]

_log = logging.getLogger(__name__)

_FIRST_REQUEST_S = 30.0
_STUCK_S = 60.0


class Connection(web.RequestHandler):
    """aiohttp's protocol, with a hook for the loss of the connection and problem documents for unreadable requests."""

    __slots__ = ("_on_lost", "_silence", "_stuck")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_lost: set[Callable[[], None]] = set()
        self._silence: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the client a while to say what it wants; aiohttp would wait for ever for the first request's head."""
        super().connection_made(transport)
        self._silence = asyncio.get_running_loop().call_later(_FIRST_REQUEST_S, transport.close)

    def begin_request(self) -> None:
        """Note that a request has come. From here on aiohttp's own time-out for idle connections holds."""
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def watch_loss(self, told: Callable[[], None]) -> None:
        """Call ``told`` once when the connection is lost; at once when it is lost already."""
        if self.transport is None:
            told()
        else:
            self._on_lost.add(told)

    def unwatch_loss(self, told: Callable[[], None]) -> None:
        """Forget ``told``."""
        self._on_lost.discard(told)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the watchers, whatever aiohttp does with the loss."""
        super().connection_lost(exc)
        self.begin_request()
        self._forget_stuck()
        watchers, self._on_lost = self._on_lost, set()
        for told in watchers:
            told()

    def pause_writing(self) -> None:
        """Give a client that takes nothing a while; aiohttp would wait for it, and keep what it was to get, for ever."""
        super().pause_writing()
        if self._stuck is None and self.transport is not None:
            self._stuck = asyncio.get_running_loop().call_later(_STUCK_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that the client takes something again."""
        super().resume_writing()
        self._forget_stuck()

    def _forget_stuck(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached a handler: a request that is no HTTP, or a header that is too long."""
        request_id = choose_request_id(None)
        if status >= 500:
            super().handle_error(request, status, exc, message)
            error: TidingsError = InternalError()
        else:
            # The parser's own words quote the request, and with it perhaps a token: they are not logged.
            _log.info(
                "a request could not be read", extra={"remote": request.remote, "fault": type(exc).__name__}
            )
            error = BadRequest("the request is no valid HTTP/1.1, or a line or header of it is too long")
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        answer = problem_response(error, request_id)
        answer.headers[REQUEST_ID_HEADER] = request_id
        answer.force_close()
        return answer


class _Server(web.Server):
    def __init__(self, handler: Any, *, options: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self._options = options

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=asyncio.get_running_loop(), **self._options)


class Runner(web.AppRunner):
    """Runs an application on connections of the kind above.

    Args:
        app: not started yet; the runner starts it and cleans it up.
        shutdown_timeout: how long running requests are waited for at the end, seconds.
        connection_options: keyword arguments of ``web.RequestHandler``.
    """

    def __init__(
        self, app: web.Application, *, shutdown_timeout: float, connection_options: dict[str, Any]
    ) -> None:
        super().__init__(app, shutdown_timeout=shutdown_timeout)
        self._options = connection_options

    async def _make_server(self) -> web.Server:
        stock = await super()._make_server()
        return _Server(stock.request_handler, request_factory=stock.request_factory, options=self._options)
