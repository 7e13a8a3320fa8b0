"""The pub/sub reader: one connection that hears sharded channels and calls back, undecoded.

It reads with hiredis on a bare ``asyncio.Protocol``, since every live event of every watched job passes here. Pub/sub is a
hint of news, never the truth: after each (re)connection the relay compares what it has with the logs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

__all__ = ["Subscriber"]

_log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 5.0
_PING_EVERY_S = 5.0
_SILENCE_S = 12.0
_BACKOFF_S = (0.05, 2.0)
_COMPLAIN_EVERY_S = 30.0


class Subscriber:
    """Keeps a set of sharded channels subscribed over one self-healing connection.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as for the store.
        on_message: called with (channel, payload) for each message; must not raise or block.
        on_connected: called when all wanted channels are confirmed on a new connection.
    """

    def __init__(
        self, url: str, *, on_message: Callable[[bytes, bytes], None], on_connected: Callable[[], None]
    ) -> None:
        self._target = _Target(url)
        self._on_message = on_message
        self._on_connected = on_connected
        self._wanted: dict[bytes, asyncio.Future[None]] = {}
        self._unconfirmed: dict[bytes, int] = {}
        self._link: _Link | None = None
        self._task: asyncio.Task[None] | None = None
        self._announced = True

    def start(self) -> None:
        """Begin connecting; the connection is kept until ``aclose``."""
        self._task = asyncio.create_task(self._keep_connected(), name="relay-subscriber")

    async def aclose(self) -> None:
        """Close the connection and forget all channels."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for future in self._wanted.values():
            future.cancel()
        self._wanted.clear()

    @property
    def is_connected(self) -> bool:
        """Whether a connection stands on which all wanted channels are or are being subscribed."""
        return self._link is not None

    @property
    def channels(self) -> int:
        """How many channels are wanted."""
        return len(self._wanted)

    def subscribe(self, channel: bytes) -> asyncio.Future[None]:
        """Want a channel. The future is done once the store has confirmed it on a living connection.

        Await it shielded: it is shared, and a reconnection makes a new one for the same channel.
        """
        future = self._wanted.get(channel)
        if future is None:
            future = self._wanted[channel] = asyncio.get_running_loop().create_future()
            if self._link is not None:
                self._send_subscribe(channel)
        return future

    def unsubscribe(self, channel: bytes) -> None:
        """Want a channel no more."""
        future = self._wanted.pop(channel, None)
        if future is None:
            return
        future.cancel()
        if self._link is not None:
            self._link.send(b"SUNSUBSCRIBE", channel)

    def _send_subscribe(self, channel: bytes) -> None:
        assert self._link is not None
        # Subscribe, unsubscribe, subscribe again: only the last confirmation counts, so they are counted.
        self._unconfirmed[channel] = self._unconfirmed.get(channel, 0) + 1
        self._link.send(b"SSUBSCRIBE", channel)

    def _handle(self, reply: list[Any]) -> None:
        kind = reply[0]
        if kind == b"smessage":
            self._on_message(reply[1], reply[2])
        elif kind == b"ssubscribe":
            channel = reply[1]
            left = self._unconfirmed[channel] - 1
            if left:
                self._unconfirmed[channel] = left
            else:
                del self._unconfirmed[channel]
                future = self._wanted.get(channel)
                if future is not None and not future.done():
                    future.set_result(None)
                self._announce()

    def _announce(self) -> None:
        if not self._announced and not self._unconfirmed:
            self._announced = True
            self._on_connected()

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        delay, complain_at = _BACKOFF_S[0], 0.0
        while True:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    link = await self._target.connect(self._handle)
            except (OSError, TimeoutError, hiredis.HiredisError) as error:
                if loop.time() >= complain_at:
                    _log.warning(
                        "cannot hear the store, and keep trying: %s", str(error) or type(error).__name__
                    )
                    complain_at = loop.time() + _COMPLAIN_EVERY_S
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, _BACKOFF_S[1])
                continue
            delay, complain_at = _BACKOFF_S[0], 0.0
            self._link, self._announced = link, False
            for channel, future in list(self._wanted.items()):
                if future.done():
                    self._wanted[channel] = loop.create_future()
                self._send_subscribe(channel)
            self._announce()
            try:
                await self._watch(link)
            finally:
                self._link = None
                self._unconfirmed.clear()
                link.abort()

    async def _watch(self, link: _Link) -> None:
        """Return when the connection is lost, or has been silent for too long to be alive."""
        loop = asyncio.get_running_loop()
        while not link.lost.done():
            await asyncio.wait([link.lost], timeout=_PING_EVERY_S)
            if loop.time() - link.heard_at > _SILENCE_S:
                _log.warning("the store's pub/sub connection fell silent; connecting anew")
                return
            link.send(b"PING")


class _Link(asyncio.Protocol):
    """One connection. Replies to commands sent before ``open`` is set go to ``replies``."""

    def __init__(self, handle: Callable[[list[Any]], None]) -> None:
        self._reader = hiredis.Reader()
        self._handle = handle
        self._greeting: list[asyncio.Future[Any]] = []
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.heard_at = loop.time()
        self._loop = loop
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        reader, handle = self._reader, self._handle
        reader.feed(data)
        while True:
            reply = reader.gets()
            if reply is False:
                return
            if type(reply) is list and not self._greeting:
                handle(reply)
            elif self._greeting:
                future = self._greeting.pop(0)
                if not future.done():
                    if isinstance(reply, hiredis.ReplyError):
                        future.set_exception(OSError(str(reply)))
                    else:
                        future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        for future in self._greeting:
            if not future.done():
                future.set_exception(OSError("the connection was lost"))

    def send(self, *parts: bytes) -> None:
        assert self._transport is not None
        self._transport.write(hiredis.pack_command(parts))  # type: ignore[arg-type]  # the stub means a tuple of any length

    async def call(self, *parts: bytes) -> Any:
        """Send a command of the greeting and await its reply."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._greeting.append(future)
        self.send(*parts)
        return await future

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Target:
    """Where to connect and how to greet, taken from a URL. The password stays in here."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "rediss"
        query = parse_qs(parts.query)
        self._path = parts.path if parts.scheme == "unix" else None
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 6379
        self._password = unquote(parts.password or query.get("password", [""])[0])
        self._user = unquote(parts.username or query.get("username", [""])[0])
        self._ca = query.get("ssl_ca_certs", [None])[0]
        self._verify = query.get("ssl_cert_reqs", ["required"])[0] != "none"

    async def connect(self, handle: Callable[[list[Any]], None]) -> _Link:
        """Open, authenticate and name the connection."""
        loop = asyncio.get_running_loop()
        if self._path is not None:
            _, link = await loop.create_unix_connection(lambda: _Link(handle), self._path)
        else:
            _, link = await loop.create_connection(
                lambda: _Link(handle), self._host, self._port, ssl=self._context() if self._tls else None
            )
        try:
            if self._password:
                user = [self._user.encode()] if self._user else []
                await link.call(b"AUTH", *user, self._password.encode())
            await link.call(b"CLIENT", b"SETNAME", b"tidings-relay")
        except BaseException:
            link.abort()
            raise
        return link

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._ca)
        if not self._verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
