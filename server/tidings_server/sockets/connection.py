"""One Socket.IO connection: who it is, what it watches, and what waits to be sent to it.

Packets go straight into engineio's queue while that is short. Behind a slow client they wait here, bounded in bytes; over the
bound the connection is closed with ``slow_consumer``, and the client resumes by its positions.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tidings_tasks.store import Tenant

from ..auth import Identity
from ..relay import Entry, Page, Topic
from .wire import SocketServer, event_packet, feed_packet, job_packet

__all__ = ["Connection", "FeedWatch", "JobWatch"]

_log = logging.getLogger(__name__)

_ENGINE_QUEUE_PACKETS = 64
_ANSWERS_AHEAD_BYTES = 262_144
"""Answers to calls that may wait for a client to read before the next call waits too; one answer may be as long."""
_EXPIRY_WARNING_S = 60.0


class Connection:
    """What the server keeps of a connected client. Made at CONNECT, ended at disconnect."""

    def __init__(self, server: SocketServer, sid: str, identity: Identity, *, buffer_bytes: int) -> None:
        self.sid = sid
        self.identity = identity
        self.watches: dict[str, JobWatch | FeedWatch] = {}
        self._server = server
        self._buffer_bytes = buffer_bytes
        self._backlog: deque[Any] = deque()
        self._backlog_bytes = 0
        self._answers_bytes = 0
        self._pump: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._is_closed = False

    @property
    def has_ended(self) -> bool:
        """Whether the client is gone; nothing may be begun for it any more."""
        return self._is_closed

    def answer(self, packet: Any) -> None:
        """Send a call's answer behind everything sent before; the next call is to ``wait_for_room``."""
        socket = self._server.engine_socket(self.sid)
        if socket is None or socket.queue.empty():
            self._answers_bytes = 0
        self._answers_bytes += len(packet.data)
        self.send(packet, hold=self._answers_bytes > _ANSWERS_AHEAD_BYTES)

    async def wait_for_room(self) -> None:
        """Wait until nothing is held back, so that a client's calls cannot outrun its reading."""
        while self._pump is not None and not self._is_closed:
            await asyncio.wait([self._pump])

    def send(self, packet: Any, *, hold: bool = False) -> None:
        """Send a packet behind everything sent before; never waits. ``hold`` keeps it here until that is taken."""
        if self._is_closed:
            return
        socket = self._server.engine_socket(self.sid)
        if socket is None or socket.closed:
            return
        if not hold and not self._backlog and socket.queue.qsize() < _ENGINE_QUEUE_PACKETS:
            socket.queue.put_nowait(packet)
            return
        self._backlog.append(packet)
        self._backlog_bytes += len(packet.data)
        if self._backlog_bytes > self._buffer_bytes:
            _log.info("closing a slow consumer", extra={"sid": self.sid, "bytes": self._backlog_bytes})
            self.close("slow_consumer", abort=True)
        elif self._pump is None:
            self._pump = asyncio.create_task(self._drain(socket), name=f"socket-drain {self.sid}")

    async def wait_writable(self) -> None:
        """Wait until little is queued for the client; for the sender of a long catch-up."""
        await self.wait_for_room()
        socket = self._server.engine_socket(self.sid)
        if socket is not None and not socket.closed:
            await socket.queue.join()

    def close(self, code: str, *, abort: bool = False) -> None:
        """Say ``bye`` and close; what already waits is sent first unless ``abort``."""
        if self._is_closed:
            return
        socket = self._server.engine_socket(self.sid)
        if socket is not None and not socket.closed:
            for packet in () if abort else self._backlog:
                socket.queue.put_nowait(packet)
            socket.queue.put_nowait(event_packet("bye", {"code": code}))
            self._server.close_socket(self.sid, abort=abort)
        self._backlog.clear()

    def set_expiry(self, now: float, expire: Callable[[], None]) -> None:
        """Schedule the warning before the token's end, and the end; ``now`` and ``expires_at`` are Unix seconds."""
        for timer in self._timers:
            timer.cancel()
        loop = asyncio.get_running_loop()
        left = max(0.0, self.identity.expires_at - now)
        warning_s = min(
            _EXPIRY_WARNING_S, left / 2
        )  # a short-lived token is not warned of at once, again and again
        self._timers = [
            loop.call_later(left - warning_s, self._warn, warning_s),
            loop.call_later(left, expire),
        ]

    def _warn(self, left_s: float) -> None:
        self.send(event_packet("token:expiring", {"expires_in_s": round(left_s, 1)}))

    def end(self) -> None:
        """Forget the connection; it is gone."""
        self._is_closed = True
        self._backlog.clear()
        for timer in self._timers:
            timer.cancel()
        if self._pump is not None:
            self._pump.cancel()
        for watch in list(self.watches.values()):
            watch.end()
        self.watches.clear()

    async def _drain(self, socket: Any) -> None:
        try:
            while self._backlog and not socket.closed:
                await socket.queue.join()
                while self._backlog and socket.queue.qsize() < _ENGINE_QUEUE_PACKETS:
                    packet = self._backlog.popleft()
                    self._backlog_bytes -= len(packet.data)
                    socket.queue.put_nowait(packet)
        finally:
            self._pump = None


class _Watch:
    """A subscription of one connection: a watcher of a topic, with the task that catches up behind a long ack."""

    def __init__(self, connection: Connection, topic: Topic, release: Callable[[Topic], None]) -> None:
        self.topic = topic
        self.catching_up: asyncio.Task[None] | None = None
        self._connection = connection
        self._release = release
        self._ended = False

    def end(self) -> None:
        """Stop watching and give the topic back."""
        if self._ended:
            return
        self._ended = True
        self.topic.leave(self)  # type: ignore[arg-type]  # the subclasses are the watchers
        if self.catching_up is not None:
            self.catching_up.cancel()
        self._release(self.topic)


class JobWatch(_Watch):
    """Watches a job: envelopes as ``job:<kind>``."""

    def __init__(
        self,
        connection: Connection,
        topic: Topic,
        release: Callable[[Topic], None],
        *,
        job_id: str,
        tenant: Tenant,
    ) -> None:
        super().__init__(connection, topic, release)
        self.job_id = job_id
        self.tenant = tenant

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Send events; after the terminal one the watch is over."""
        for entry in entries:
            self._connection.send(job_packet(entry))
        if entries[-1].is_terminal:
            self.finish()

    def reset(self, page: Page) -> None:
        """Tell the client to begin anew from the snapshot."""
        job = None if page.job is None else page.job.view()
        position = "0" if page.job is None else page.base
        self._connection.send(
            event_packet("job:reset", {"job_id": self.job_id, "job": job, "position": position})
        )
        for entry in page.entries:
            self._connection.send(job_packet(entry))
        if page.has_ended or page.job is None:
            self.finish()

    def finish(self) -> None:
        """End the watch; nothing follows."""
        self._connection.watches.pop(self.job_id, None)
        self.end()


class FeedWatch(_Watch):
    """Watches a feed: entries as ``feed:event``, progress at most twice a second a job."""

    def __init__(
        self, connection: Connection, topic: Topic, release: Callable[[Topic], None], *, feed: str
    ) -> None:
        super().__init__(connection, topic, release)
        self.feed = feed
        self._latest: dict[str, Entry] = {}
        self._flush: asyncio.TimerHandle | None = None

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Send numbered entries at once; of a job's progress only the latest, every half second."""
        for entry in entries:
            if entry.seq:
                self._latest.pop(entry.job_id, None)
                self._connection.send(feed_packet(entry, self.feed))
            else:
                self._latest[entry.job_id] = entry
                if self._flush is None:
                    self._flush = asyncio.get_running_loop().call_later(0.5, self._send_latest)

    def reset(self, page: Page) -> None:
        """Tell the client to begin anew from the feed's open jobs."""
        jobs = [job.view() for job in page.jobs or ()]
        self._connection.send(
            event_packet("feed:reset", {"feed": self.feed, "jobs": jobs, "position": str(page.end)})
        )

    def end(self) -> None:
        """Stop watching."""
        if self._flush is not None:
            self._flush.cancel()
        super().end()

    def _send_latest(self) -> None:
        self._flush = None
        for entry in self._latest.values():
            self._connection.send(feed_packet(entry, self.feed))
        self._latest.clear()
