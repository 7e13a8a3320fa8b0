"""Following jobs over one Socket.IO connection, shared by all watches of a client: the top rung."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from ..cursor import Batch
from ..http import Http
from ..policy import WatchPolicy
from ..protocol.errors import TidingsError, Unauthenticated
from . import ConnectionState, TransportFailed

if TYPE_CHECKING:
    from .connection import SocketConnection

__all__ = ["SocketIo"]


class SocketIo:
    """Dials when a watch needs a connection and none is there, once for all that wait; closed with the client."""

    name = "socket.io"
    state = ConnectionState.LIVE

    def __init__(self, http: Http, policy: WatchPolicy) -> None:
        self._http = http
        self._policy = policy
        self._connection: SocketConnection | None = None
        self._dialing: asyncio.Task[SocketConnection] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._closed = False

    async def follow(self, job_id: str, after: str) -> AsyncGenerator[Batch, None]:
        """Subscribe, then yield the answer and what arrives behind it; see `Transport.follow`."""
        connection = await self._connected()
        inbox = connection.enter(job_id)
        try:
            await connection.subscribe(inbox, after)
            try:
                async with asyncio.timeout(self._policy.connect_timeout_s):
                    answer = await inbox.next()
            except TimeoutError as error:
                raise TransportFailed("the server did not answer a subscription in time") from error
            yield answer
            while True:
                yield await inbox.next()
        finally:
            await connection.leave(inbox)

    async def close(self) -> None:
        """Close the connection and wait for all tasks of this transport."""
        self._closed = True
        if self._dialing is not None:
            self._dialing.cancel()
            await asyncio.gather(self._dialing, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def _connected(self) -> SocketConnection:
        if self._closed:
            raise RuntimeError("the client is closed")
        if self._connection is not None and self._connection.alive:
            return self._connection
        if self._dialing is None:
            self._dialing = asyncio.create_task(self._dial(), name="tidings-dial")
            self._dialing.add_done_callback(self._dialled)
        attempt = self._dialing
        try:
            # One watch that is closed must not take the attempt away from the others.
            return await asyncio.shield(attempt)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if attempt.cancelled() and task is not None and not task.cancelling():
                raise RuntimeError("the client is closed") from None
            raise

    def _dialled(self, attempt: asyncio.Task[SocketConnection]) -> None:
        self._dialing = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._connection = attempt.result()

    async def _dial(self) -> SocketConnection:
        await asyncio.sleep(self._policy.backoff.delay_s(self._failures))
        tokens = self._http.tokens
        try:
            token = await tokens.current()
            try:
                connection = await self._open(token)
            except Unauthenticated:
                if not tokens.renewable:
                    raise
                connection = await self._open(await tokens.renewed(token))
        except TidingsError as error:
            self._failures += 1
            if isinstance(error, TransportFailed):
                error.paced = True
            raise
        self._failures = 0
        return connection

    async def _open(self, token: str) -> SocketConnection:
        # Loaded here because socketio imports every message queue client that happens to be installed.
        from .connection import SocketConnection

        connection = SocketConnection(self._http.session, self._http.tokens, self._policy, self._ended)
        try:
            await connection.open(self._http.base, token)
        except BaseException:
            await connection.close()
            raise
        return connection

    def _ended(self, connection: SocketConnection) -> None:
        closing = asyncio.get_running_loop().create_task(connection.close(), name="tidings-close-connection")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
