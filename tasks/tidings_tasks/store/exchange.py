"""Calls of scripts over connections of their own: the client library's way costs more than most of the calls.

The library opens and greets a connection, with whatever the URL asks for; from then on it is a bare
``asyncio.Protocol``, read with hiredis. A connection carries one call at a time.
"""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
import redis.asyncio
from redis._parsers.base import BaseParser  # the one place that knows which error a reply stands for
from redis.asyncio.retry import Retry
from redis.exceptions import InvalidResponse, RedisError

__all__ = ["Exchange"]

_IDLE_S = 30.0
"""A connection that was silent for longer may be dead without a sign, and is not used again."""


class Exchange:
    """Runs commands one by one, on as many connections as there are callers, up to a bound. Used on one loop.

    Args:
        pool: makes the connections, and has the policy for repeating what a lost connection interrupted.
        timeout_s: the bound on waiting for a connection, and on each try.
    """

    def __init__(
        self, pool: redis.asyncio.ConnectionPool, retry: Retry, *, max_connections: int, timeout_s: float
    ) -> None:
        self._pool = pool
        self._retry = retry
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(max_connections)
        self._idle: list[_Line] = []

    async def call(self, *args: Any) -> Any:
        """Run one command, again where the connection is lost.

        Raises:
            ConnectionError: there is no connection.
            TimeoutError: there is no answer, or no connection free, in time.
            ResponseError: the server refuses the command.
        """
        packed = hiredis.pack_command(args)
        if self._room.locked():
            async with asyncio.timeout(self._timeout_s):
                await self._room.acquire()
        else:
            await self._room.acquire()
        try:
            return await self._retry.call_with_retry(lambda: self._try(packed), _let_be)
        finally:
            self._room.release()

    async def aclose(self) -> None:
        """Close all connections."""
        idle, self._idle = self._idle, []
        for line in idle:
            await line.aclose()

    async def _try(self, packed: bytes) -> Any:
        line = await self._take_idle() or await self._open()
        try:
            reply = await line.ask(packed, self._timeout_s)
        except BaseException:
            # What would be read next is the answer that was not waited for.
            await line.aclose()
            raise
        self._idle.append(line)
        if isinstance(reply, RedisError):
            raise reply
        return reply

    async def _take_idle(self) -> _Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.is_fresh:
                return line
            await line.aclose()
        return None

    async def _open(self) -> _Line:
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()
            return _Line(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise


class _Line(asyncio.Protocol):
    """One connection, taken over from the library once it is greeted."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=BaseParser.parse_error)
        self._answer: asyncio.Future[Any] | None = None
        self._is_lost = False
        self._used_at = self._loop.time()
        # Public in asyncio, private in the library.
        self._transport: asyncio.Transport = connection._writer.transport  # noqa: SLF001
        self._transport.set_protocol(self)

    @property
    def is_fresh(self) -> bool:
        """Whether it may be used."""
        return not self._is_lost and self._loop.time() - self._used_at < _IDLE_S

    async def ask(self, packed: bytes, timeout_s: float) -> Any:
        """Send a command and return the answer, an error as a value."""
        self._answer = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, self._fail, redis.TimeoutError("no answer in time"))
        try:
            self._transport.write(packed)
            return await self._answer
        finally:
            timer.cancel()
            self._used_at = self._loop.time()

    async def aclose(self) -> None:
        """Close the connection, and have the library forget it."""
        await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """Read an answer."""
        self._reader.feed(data)
        try:
            reply = self._reader.gets()
        except InvalidResponse as error:
            self._fail(error)
            return
        if reply is not False and self._answer is not None and not self._answer.done():
            self._answer.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is over."""
        self._is_lost = True
        self._fail(redis.ConnectionError(f"the connection to the store was lost: {error or 'closed'}"))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


async def _let_be(_: Exception) -> None:
    """What fails closes its own connection."""
