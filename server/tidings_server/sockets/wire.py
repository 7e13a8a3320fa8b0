"""The seams into python-socketio and engineio: every private name of theirs that we touch, in one place.

Tested with python-socketio 5.16-5.18 and python-engineio 4.13-4.15; ``check_seams`` fails at start-up when a name is gone.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import engineio
import orjson
import socketio
from aiohttp import web
from engineio.async_drivers.aiohttp import WebSocket as _DriverWebSocket
from engineio.async_socket import AsyncSocket
from engineio.exceptions import QueueEmpty, SocketIsClosedError
from engineio.packet import MESSAGE, packet_names
from engineio.packet import Packet as EnginePacket
from socketio.packet import ACK

from ..relay import Entry

__all__ = [
    "CONNECT_DEADLINE_S",
    "SocketServer",
    "check_seams",
    "encode_event",
    "event_packet",
    "feed_packet",
    "job_packet",
]

_log = logging.getLogger(__name__)

CONNECT_DEADLINE_S = 10.0
"""From an opened Engine.IO connection to its CONNECT; python-socketio itself would wait for ever."""


CLOSE_GRACE_S = 5.0
"""From closing a connection to cutting it off, for a client that does not read what is left for it."""

POLL_MAX_PACKETS = 16
"""In one answer to a poll; python-engineio's ``Payload.max_decode_packets``."""


class _Json:
    """What python-socketio wants of a JSON module, by orjson."""

    JSONDecodeError = orjson.JSONDecodeError

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        return orjson.dumps(value).decode()

    loads = staticmethod(orjson.loads)


def encode_event(name: str, body: bytes) -> Any:
    """Make the Engine.IO packet of a Socket.IO event whose one argument is JSON already. It caches its encoding."""
    return EnginePacket(MESSAGE, data=f'2["{name}",{body.decode()}]')


def event_packet(name: str, body: Any) -> Any:
    """Make the packet of an event whose argument is a Python value."""
    return encode_event(name, orjson.dumps(body))


def job_packet(entry: Entry) -> Any:
    """The packet of a job's event, made once for all its watchers; the envelope is passed through as it is stored."""
    if entry.packet is None:
        entry.packet = encode_event(f"job:{entry.kind}", entry.text)
    return entry.packet


def feed_packet(entry: Entry, feed: str) -> Any:
    """The packet of a feed's entry, made once for all its watchers."""
    if entry.packet is None:
        head = orjson.dumps({"feed": feed, "position": entry.position})[:-1]
        entry.packet = encode_event("feed:event", head + b',"event":' + entry.text + b"}")
    return entry.packet


class _PlainWebSocket(_DriverWebSocket):  # type: ignore[misc]  # the library is not typed
    """The driver's WebSocket without permessage-deflate, which costs 123 KB a connection and CPU on every frame."""

    async def __call__(self, environ: dict[str, Any]) -> web.WebSocketResponse:
        request = environ["aiohttp.request"]
        self._sock = web.WebSocketResponse(max_msg_size=self.server.max_http_buffer_size, compress=False)
        await self._sock.prepare(request)
        socket = self.handler.__self__
        socket.transport = request.transport
        try:
            await self.handler(self)
        except ValueError as error:
            # What is no packet at all makes engineio's reader raise, which would keep the session until a ping times out.
            _log.info("closing a connection that broke the protocol: %s", type(error).__name__)
            await socket.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_ERROR)
        finally:
            socket.transport = None
            socket.stop_abort()
        return self._sock

    async def send(self, message: Any) -> None:
        try:
            await super().send(message)
        except Exception:
            # The reader cannot notice while a call of this client waits for it to read.
            await self.handler.__self__.close(
                wait=False, abort=True, reason=self.server.reason.TRANSPORT_ERROR
            )
            raise


class _EngineSocket(AsyncSocket):  # type: ignore[misc]  # the library is not typed
    """engineio's socket with bounds: on the packets of a poll's answer, and on how long a closed one may linger."""

    transport: asyncio.Transport | None = None
    _abort: asyncio.TimerHandle | None = None

    async def poll(self) -> list[Any]:
        limit = sys.maxsize if self.upgraded else POLL_MAX_PACKETS
        try:
            async with asyncio.timeout(self.server.ping_interval + self.server.ping_timeout):
                packets = [await self.queue.get()]
        except (TimeoutError, asyncio.CancelledError):
            raise QueueEmpty from None
        self.queue.task_done()
        if packets == [None]:
            return []
        while len(packets) < limit and not self.queue.empty():
            packet = self.queue.get_nowait()
            self.queue.task_done()
            if packet is None:
                # The end of the connection: to be found by the next poll, behind what is sent now.
                self.queue.put_nowait(None)
                break
            packets.append(packet)
        return packets

    async def receive(self, pkt: Any) -> None:
        if pkt.packet_type >= len(packet_names):
            # Stock engineio stumbles over it, logs that as a fault of its own, and reads on.
            _log.info("closing a connection that broke the protocol: packet type %d", pkt.packet_type)
            await self.close(wait=False, abort=True)
            raise SocketIsClosedError
        await super().receive(pkt)

    async def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        """Close without waiting for the client: a poll that waits ends, a WebSocket nobody reads is cut off.

        Stock engineio lets the poll wait out its time, and a writer stuck behind a dead client wait for ever. A WebSocket
        gets no CLOSE packet, only its close frame, as from Node's server: the packet keeps clients from reconnecting.
        """
        if self.closed or self.closing:
            return
        await super().close(wait=False, abort=abort or self.upgraded, reason=reason)
        self.queue.put_nowait(None)
        if self.transport is not None:
            if abort:
                self.transport.abort()
            else:
                self._abort = asyncio.get_running_loop().call_later(CLOSE_GRACE_S, self.transport.abort)

    def stop_abort(self) -> None:
        """The connection has ended by itself; there is nothing to cut off."""
        if self._abort is not None:
            self._abort.cancel()
            self._abort = None


class _EngineServer(engineio.AsyncServer):  # type: ignore[misc]  # the library is not typed
    """engineio's server whose background tasks are owned: its pings would outlive it by an interval."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._async: dict[str, Any] = {**self._async, "websocket": _PlainWebSocket}
        self._background: set[asyncio.Task[Any]] = set()

    def start_background_task(self, target: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        task = asyncio.ensure_future(target(*arguments, **options))
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def aclose(self) -> None:
        """Cancel what still runs."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)


class SocketServer(socketio.AsyncServer):  # type: ignore[misc]  # the library is not typed
    """python-socketio's server with a deadline for CONNECT, no binary, and a word after CONNECT.

    Args:
        connected: called with the Socket.IO sid right behind the CONNECT packet, so what it sends comes after it.
        acknowledge: called with the sid and the packet of each acknowledgement; it queues it behind the events sent before.
    """

    def __init__(
        self,
        *,
        connected: Callable[[str], None],
        acknowledge: Callable[[str, Any], None],
        **options: Any,
    ) -> None:
        super().__init__(
            async_mode="aiohttp",
            async_handlers=False,  # one connection's calls are handled in order
            json=_Json,
            http_compression=False,
            **options,
        )
        self._connected = connected
        self._acknowledge = acknowledge
        self._deadlines: dict[str, asyncio.TimerHandle] = {}
        self._closing: set[asyncio.Task[Any]] = set()

    def engine_socket(self, sid: str) -> Any | None:
        """The Engine.IO socket behind a Socket.IO sid, or None when it is gone."""
        eio_sid = self.manager.eio_sid_from_sid(sid, "/")
        return None if eio_sid is None else self.eio.sockets.get(eio_sid)

    def close_socket(self, sid: str, *, abort: bool = False) -> None:
        """Close the connection below: after what is queued, or at once."""
        socket = self.engine_socket(sid)
        if socket is not None:
            self._own(socket.close(wait=False, abort=abort))

    def _own(self, work: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> Any:
        self._start_deadline(eio_sid)
        # engineio hard-codes the class it makes; until its first packet is sent, nothing has been bound to it.
        self.eio.sockets[eio_sid].__class__ = _EngineSocket
        return await super()._handle_eio_connect(eio_sid, environ)

    def _start_deadline(self, eio_sid: str) -> None:
        self._stop_deadline(eio_sid)
        self._deadlines[eio_sid] = asyncio.get_running_loop().call_later(
            CONNECT_DEADLINE_S, self._connect_too_late, eio_sid
        )

    def _connect_too_late(self, eio_sid: str) -> None:
        self._deadlines.pop(eio_sid, None)
        socket = self.eio.sockets.get(eio_sid)
        if socket is not None:
            self._own(socket.close(wait=False))

    def _stop_deadline(self, eio_sid: str) -> None:
        timer = self._deadlines.pop(eio_sid, None)
        if timer is not None:
            timer.cancel()

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        await super()._handle_connect(eio_sid, namespace, data)
        sid = self.manager.sid_from_eio_sid(eio_sid, namespace or "/")
        if sid is not None and self.manager.is_connected(sid, namespace or "/"):
            self._stop_deadline(eio_sid)
            self._connected(sid)

    async def _handle_disconnect(
        self, eio_sid: str, namespace: str | None, reason: str | None = None
    ) -> None:
        """The client left, and may CONNECT again on the same transport: within the time a new one has."""
        await super()._handle_disconnect(eio_sid, namespace, reason)
        socket = self.eio.sockets.get(eio_sid)
        if socket is not None and not socket.closing:
            self._start_deadline(eio_sid)

    async def _handle_event(self, eio_sid: str, namespace: str | None, id: int | None, data: Any) -> None:
        if data[0] in self.reserved_events:
            # The library would run the server's own handlers of these, with the client's arguments.
            raise ValueError("reserved event names are not accepted")
        await super()._handle_event(eio_sid, namespace, id, data)

    async def _send_packet(self, eio_sid: str, pkt: Any) -> None:
        if pkt.packet_type != ACK:
            await super()._send_packet(eio_sid, pkt)
            return
        sid = self.manager.sid_from_eio_sid(eio_sid, pkt.namespace or "/")
        if sid is not None:
            self._acknowledge(sid, EnginePacket(MESSAGE, data=pkt.encode()))

    async def _handle_eio_message(self, eio_sid: str, data: Any) -> None:
        try:
            if not isinstance(data, str):
                raise ValueError("binary packets are not accepted")
            if data[:1] in ("5", "6"):
                raise ValueError("binary events are not accepted")
            await super()._handle_eio_message(eio_sid, data)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            # The library's parser raises whatever a hostile packet makes it raise: the connection is at fault, not the server.
            _log.info("closing a connection that broke the protocol: %s", type(error).__name__)
            socket = self.eio.sockets.get(eio_sid)
            if socket is not None and not socket.closed:
                socket.queue.put_nowait(event_packet("bye", {"code": "protocol_error"}))
                await socket.close(wait=False)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str | None = None) -> Any:
        self._stop_deadline(eio_sid)
        return await super()._handle_eio_disconnect(eio_sid, reason)

    async def aclose(self) -> None:
        """Close every connection and end the library's own tasks."""
        for timer in self._deadlines.values():
            timer.cancel()
        self._deadlines.clear()
        for socket in list(self.eio.sockets.values()):
            if not socket.closed:
                await socket.close(wait=False)
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self.eio.aclose()

    def _engineio_server_class(self) -> type[_EngineServer]:
        return _EngineServer


def check_seams() -> None:
    """Make sure that what we override and touch exists in the installed versions.

    Raises:
        RuntimeError: it does not; the message names what is missing.
    """
    wanted = {
        socketio.AsyncServer: (
            "_handle_connect", "_handle_disconnect", "_handle_event", "_handle_eio_connect", "_handle_eio_message",
            "_handle_eio_disconnect", "_engineio_server_class", "_send_packet", "reserved_events",
        ),
        engineio.AsyncServer: ("start_background_task",),
        socketio.AsyncManager: ("eio_sid_from_sid", "sid_from_eio_sid", "is_connected"),
        AsyncSocket: ("close", "poll", "receive", "send"),
    }  # fmt: skip
    missing = [
        f"{kind.__name__}.{name}"
        for kind, names in wanted.items()
        for name in names
        if not hasattr(kind, name)
    ]
    if missing:
        raise RuntimeError(
            f"python-socketio or python-engineio lacks {', '.join(missing)}; "
            "install one of the versions that pyproject.toml asks for"
        )
