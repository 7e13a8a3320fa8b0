"""Open streams and long-polls: counted, bounded, and ended when the client goes, the token expires or the server drains."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final, TypeVar

from aiohttp import web

from tidings.protocol.errors import RateLimited, ServerDraining

from .auth import Identity
from .connection import Connection

__all__ = ["WAITED", "End", "Ended", "Stream", "Streams"]

T = TypeVar("T")

WAITED: Final = web.RequestKey("waited", bool)
"""Set on a request that was a stream or a long-poll: how long it took says nothing about the server."""


class End(Enum):
    """Why a stream's waiting is over before its time."""

    CLIENT_GONE = "client_gone"
    DRAINING = "draining"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105  # a reason, no secret


class Ended(Exception):  # a signal between a stream and its handler, no error of anybody's
    """The stream must end now, for ``reason``."""

    def __init__(self, reason: End) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Stream:
    """One request that waits for news. Used by the one task that serves it."""

    def __init__(self, expires_at: float, now: Callable[[], float]) -> None:
        self._expires_at = expires_at
        self._now = now
        self._reason: End | None = None
        self._scope: asyncio.Timeout | None = None

    def end(self, reason: End) -> None:
        """Make the wait that is on, or the next one, raise ``Ended``. The first reason stays."""
        if self._reason is None:
            self._reason = reason
            if self._scope is not None:
                self._scope.reschedule(asyncio.get_running_loop().time())

    async def wait_for(self, news: Awaitable[T]) -> T:
        """Await ``news``, which must bear being cancelled.

        Raises:
            Ended: the client left, the server drains, or the token expired first.
        """
        left_s = self._expires_at - self._now()
        if self._reason is None and left_s <= 0:
            self._reason = End.TOKEN_EXPIRED
        try:
            async with asyncio.timeout(0 if self._reason else left_s) as scope:
                self._scope = scope
                return await news
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise Ended(self._reason or End.TOKEN_EXPIRED) from error
        finally:
            self._scope = None


class Streams:
    """All open streams of a server process.

    Args:
        max_open: how many there may be in all.
        max_per_subject: how many one subject may have.
        lasted: told of each stream's kind and seconds when it ends.
        now: the wall clock, in seconds since the Unix epoch.
    """

    def __init__(
        self,
        *,
        max_open: int,
        max_per_subject: int,
        lasted: Callable[[str, float], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._max_open = max_open
        self._max_per_subject = max_per_subject
        self._lasted = lasted
        self._now = now
        self._open: set[Stream] = set()
        self._by_subject: Counter[str] = Counter()
        self._is_draining = False

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def open(self, request: web.Request, identity: Identity, kind: str) -> Iterator[Stream]:
        """Count a stream while the context lasts. ``kind`` is ``sse`` or ``poll``, for the metrics.

        Raises:
            RateLimited: the caller, or the server, has as many as are allowed.
            ServerDraining: the server is about to close.
        """
        subject = identity.tenant.scope
        if self._is_draining:
            raise ServerDraining("this server is shutting down; ask again to reach another", retry_after_s=1)
        if self._by_subject[subject] >= self._max_per_subject:
            raise RateLimited(
                f"{self._max_per_subject} streams and long-polls are open already; end one first",
                retry_after_s=5,
            )
        if len(self._open) >= self._max_open:
            raise RateLimited("this server has as many streams open as it can serve", retry_after_s=5)
        stream = Stream(identity.expires_at, self._now)
        told = _when_lost(stream)
        connection = request.protocol
        request[WAITED] = True
        self._open.add(stream)
        self._by_subject[subject] += 1
        began_at = time.monotonic()
        try:
            if isinstance(connection, Connection):
                connection.watch_loss(told)
            yield stream
        finally:
            if isinstance(connection, Connection):
                connection.unwatch_loss(told)
            self._open.discard(stream)
            self._by_subject[subject] -= 1
            if not self._by_subject[subject]:
                del self._by_subject[subject]
            self._lasted(kind, time.monotonic() - began_at)

    def drain(self) -> None:
        """End all streams, and take no new ones."""
        self._is_draining = True
        for stream in list(self._open):
            stream.end(End.DRAINING)


def _when_lost(stream: Stream) -> Callable[[], None]:
    def told() -> None:
        stream.end(End.CLIENT_GONE)

    return told
