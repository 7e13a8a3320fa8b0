"""The load client: raw WebSocket connections that count what they are sent, cheaper than any server that sends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

__all__ = ["Crowd", "frame"]


def frame(text: str) -> bytes:
    """A masked text frame (RFC 6455), with a mask of zeros."""
    data = text.encode()
    length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + data


class Crowd:
    """Many connections that subscribe to one job and count events by a marker that stands once in each."""

    def __init__(self, port: int, token: str, job_id: str, *, marker: bytes) -> None:
        self._port = port
        self.greeting = frame("40" + json.dumps({"token": token}))
        self.subscription = frame("420" + json.dumps(["subscribe", {"job_id": job_id}]))
        self._marker = marker
        self._transports: list[asyncio.Transport] = []
        self.received = 0
        self._goal = 0
        self._reached: asyncio.Future[None] | None = None

    async def connect(self, count: int) -> None:
        """Open connections and subscribe each; returns when all subscriptions are acknowledged."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            ready: asyncio.Future[None] = loop.create_future()
            transport, _protocol = await loop.create_connection(
                lambda ready=ready: _Member(self, ready), "127.0.0.1", self._port
            )
            self._transports.append(transport)
            await ready

    def expect(self, count: int) -> asyncio.Future[None]:
        """Return a future that is done when ``count`` more events have been received over all connections."""
        self._goal = self.received + count
        self._reached = asyncio.get_running_loop().create_future()
        return self._reached

    def count(self, data: bytes) -> None:
        """Take what a connection received."""
        self.received += data.count(self._marker)
        if self._reached is not None and not self._reached.done() and self.received >= self._goal:
            self._reached.set_result(None)

    def close(self) -> None:
        """Close all connections."""
        for transport in self._transports:
            transport.abort()


class _Member(asyncio.Protocol):
    def __init__(self, crowd: Crowd, ready: asyncio.Future[None]) -> None:
        self._crowd = crowd
        self._ready = ready
        self._seen = b""
        self._steps: list[tuple[bytes, bytes]] = [
            (b'0{"sid"', crowd.greeting),
            (b'40{"sid"', crowd.subscription),
            (b"430[", b""),
        ]
        self._handle: Callable[[bytes], None] = self._greet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        self._handle(data)

    def _greet(self, data: bytes) -> None:
        self._seen += data
        while self._steps and self._steps[0][0] in self._seen:
            _, answer = self._steps.pop(0)
            if answer:
                self._transport.write(answer)
        if not self._steps:
            self._seen = b""
            self._handle = self._crowd.count
            self._ready.set_result(None)
