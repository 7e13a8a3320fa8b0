"""The Socket.IO gateway: parse, authorise, delegate to the relay (contract §5)."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web
from socketio.exceptions import ConnectionRefusedError as Refused

import tidings
from tidings.protocol import BEGINNING, Position, is_job_id, shard_of
from tidings.protocol.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    InvalidInput,
    JobNotFound,
    RateLimited,
    ServerDraining,
    TidingsError,
    Unauthenticated,
)
from tidings_tasks.settings import Settings
from tidings_tasks.store import Store, commands

from .auth import Authenticator
from .relay import Page, Relay
from .relay.entry import JobSource
from .relay.topic import PAGE_BYTES, PAGE_ENTRIES
from .sockets.calls import invalid, only_fields, position, refusal
from .sockets.connection import Connection, FeedWatch, JobWatch
from .sockets.wire import SocketServer, check_seams, event_packet

__all__ = ["Gateway"]

_log = logging.getLogger(__name__)

ACK_MAX_EVENTS = 1000
ACK_MAX_BYTES = 256_000
_CONFIRM_TIMEOUT_S = 10.0
_MAX_MESSAGE_BYTES = 65_536
_RECONNECT_MS = 1000

Handler = Callable[[Connection, dict[str, Any]], Awaitable[dict[str, Any]]]


class Gateway:
    """Hosts the Socket.IO endpoint of one server process. ``attach`` it before the app starts, ``aclose`` it at the end."""

    def __init__(self, settings: Settings, store: Store, relay: Relay, authenticator: Authenticator) -> None:
        check_seams()
        self._settings = settings
        self._store = store
        self._relay = relay
        self._authenticator = authenticator
        self._connections: dict[str, Connection] = {}
        self._catching_up: set[asyncio.Task[None]] = set()
        self._is_draining = False
        self.server_id = secrets.token_hex(6)
        self._server = SocketServer(
            connected=self._greet,
            acknowledge=self._answer,
            cors_allowed_origins=self._allows_origin,
            ping_interval=25,
            ping_timeout=20,
            max_http_buffer_size=_MAX_MESSAGE_BYTES,
            logger=False,
            engineio_logger=False,
        )
        self._server.on("connect", self._connect)
        self._server.on("disconnect", self._disconnect)
        calls: dict[str, Handler] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "authenticate": self._authenticate,
        }
        for name, call in calls.items():
            self._server.on(name, self._handler(call))
        self._server.on("*", self._unknown)
        self._calls = sorted(calls)

    def attach(self, app: web.Application) -> None:
        """Serve ``/socket.io`` on an app."""
        self._server.attach(app)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def drain(self, grace_s: float) -> None:
        """Refuse new clients, ask the others to reconnect elsewhere, and close them spread over the grace."""
        self._is_draining = True
        leaving = list(self._connections.values())
        for connection in leaving:
            connection.send(event_packet("server:draining", {"reconnect_in_ms": _RECONNECT_MS}))
        # Half the grace to spread the herd; the rest is for what is still queued.
        pause = min(0.05, grace_s / 2 / len(leaving)) if leaving else 0.0
        for connection in leaving:
            await asyncio.sleep(pause)
            connection.close("server_draining")

    async def aclose(self) -> None:
        """Close all connections and end everything that was started for them."""
        self._is_draining = True
        await self._server.aclose()
        for connection in list(self._connections.values()):
            connection.end()
        self._connections.clear()
        await asyncio.gather(*self._catching_up, return_exceptions=True)

    def _allows_origin(self, origin: str, environ: dict[str, Any]) -> bool:
        """Same origin always; others as configured. A refused origin is a 400 before any Socket.IO packet."""
        allowed = self._settings.cors_origins
        if "*" in allowed or origin in allowed:
            return True
        host = environ.get("HTTP_HOST", "")
        return origin in (f"http://{host}", f"https://{host}")

    async def _connect(self, sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        try:
            if self._is_draining:
                raise ServerDraining
            if len(self._connections) >= self._settings.max_connections:
                raise RateLimited(
                    "this server has all the connections it takes; try again, or another server"
                )
            token = auth.get("token") if isinstance(auth, dict) else None
            if not isinstance(token, str):
                raise Unauthenticated("connect with auth: {token: <JWT>}")
            identity = self._authenticator.verify(token)
        except TidingsError as error:
            raise Refused(error.code, error.to_problem()) from None
        connection = Connection(self._server, sid, identity, buffer_bytes=self._settings.send_buffer_bytes)
        self._connections[sid] = connection
        self._set_expiry(connection)

    def _greet(self, sid: str) -> None:
        connection = self._connections.get(sid)
        if connection is not None:
            connection.send(event_packet("hello", {"server": self.server_id, "version": tidings.__version__}))

    def _answer(self, sid: str, packet: Any) -> None:
        connection = self._connections.get(sid)
        if connection is not None:
            connection.answer(packet)

    def _set_expiry(self, connection: Connection) -> None:
        connection.set_expiry(time.time(), lambda: connection.close("token_expired"))

    async def _disconnect(self, sid: str, reason: str | None = None) -> None:
        connection = self._connections.pop(sid, None)
        if connection is not None:
            connection.end()

    async def _unknown(self, event: str, sid: str, *_: Any) -> dict[str, Any]:
        known = ", ".join(self._calls)
        return refusal(BadRequest(f"there is no call {event[:64]!r}; known are {known}"))

    def _handler(self, call: Handler) -> Callable[..., Awaitable[dict[str, Any]]]:
        async def handle(sid: str, *arguments: Any) -> dict[str, Any]:
            connection = self._connections.get(sid)
            try:
                if connection is None:
                    raise Unauthenticated
                if len(arguments) != 1 or not isinstance(arguments[0], dict):
                    raise InvalidInput('the call takes one object, such as {"job_id": "…"}')
                await connection.wait_for_room()
                _check_alive(connection)
                return await call(connection, arguments[0])
            except TidingsError as error:
                return refusal(error)
            except Exception:
                _log.exception("a socket call failed")
                return refusal(InternalError())

        return handle

    async def _subscribe(self, connection: Connection, body: dict[str, Any]) -> dict[str, Any]:
        only_fields(body, {"job_id", "feed", "after"})
        after = position(body.get("after"))
        if "feed" in body:
            if "job_id" in body:
                raise invalid("feed", "give job_id or feed, not both")
            return await self._subscribe_feed(connection, body["feed"], after)
        return await self._subscribe_job(connection, body.get("job_id"), after)

    async def _subscribe_job(
        self, connection: Connection, job_id: Any, after: Position | None
    ) -> dict[str, Any]:
        if not isinstance(job_id, str) or not is_job_id(job_id):
            raise invalid("job_id", "must be a job id, such as 01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0")
        if shard_of(job_id) >= self._store.keyspace.shards:
            raise JobNotFound
        record = await self._store.run(commands.read_job(job_id))
        if record is None or not connection.identity.may_read(record):
            raise JobNotFound
        self._check_room(connection, job_id)
        topic = self._relay.watch_job(job_id)
        watch = JobWatch(connection, topic, self._relay.release, job_id=job_id, tenant=record.tenant)
        try:
            await topic.wait_confirmed(_CONFIRM_TIMEOUT_S)
            page = await self._first_page(job_id, after)
            _check_alive(connection)
        except BaseException:
            watch.end()
            raise
        ack: dict[str, Any] = {
            "ok": True,
            "position": str(page.end),
            "events": [orjson.Fragment(e.text) for e in page.entries],
        }
        if page.reset:
            ack["reset"] = True
        if page.job is not None:
            ack["job"] = page.job.view()
        self._keep(connection, job_id, watch)
        self._settle(connection, watch, page)
        return ack

    async def _first_page(self, job_id: str, after: Position | None) -> Page:
        source = JobSource(self._store, shard_of(job_id), job_id)
        if after is not None:
            page = await source.read(after, limit=ACK_MAX_EVENTS, max_bytes=ACK_MAX_BYTES)
        else:
            page = await source.read(BEGINNING, limit=0, max_bytes=0, with_job=True)
            if page is not None:
                # A snapshot stands at the head; that the log's beginning may be gone is no reset to somebody new.
                page = replace(page, reset=False, entries=[])
        if page is None:
            raise JobNotFound
        return page

    async def _subscribe_feed(
        self, connection: Connection, feed: Any, after: Position | None
    ) -> dict[str, Any]:
        shard, name = self._feed(connection, feed)
        self._check_room(connection, f"feed:{feed}")
        topic = self._relay.watch_feed(shard, name)
        watch = FeedWatch(connection, topic, self._relay.release, feed=feed)
        try:
            await topic.wait_confirmed(_CONFIRM_TIMEOUT_S)
            page = await topic.source.read(after or BEGINNING, limit=ACK_MAX_EVENTS, max_bytes=ACK_MAX_BYTES)
            assert page is not None
            _check_alive(connection)
        except BaseException:
            watch.end()
            raise
        events = [
            {"feed": feed, "position": entry.position, "event": orjson.Fragment(entry.text)}
            for entry in page.entries
        ]
        ack: dict[str, Any] = {
            "ok": True,
            "position": str(page.end),
            "jobs": [job.view() for job in page.jobs or ()],
            "events": events,
        }
        if page.reset:
            ack["reset"] = True
        self._keep(connection, f"feed:{feed}", watch)
        self._settle(connection, watch, page)
        return ack

    def _settle(self, connection: Connection, watch: JobWatch | FeedWatch, page: Page) -> None:
        """Right behind the ack: over, live, or still catching up. Nothing is awaited between this and the ack."""
        if isinstance(watch, JobWatch) and page.has_ended and page.end.seq >= page.head:
            watch.finish()
        elif not watch.topic.try_go_live(watch, page.end):
            task = asyncio.create_task(
                self._catch_up(connection, watch, page.end), name=f"socket-catch-up {connection.sid}"
            )
            watch.catching_up = task
            self._catching_up.add(task)
            task.add_done_callback(self._catching_up.discard)

    async def _catch_up(self, connection: Connection, watch: JobWatch | FeedWatch, at: Position) -> None:
        """Send what is left behind a full ack, page by page as the client takes it, then go live."""
        topic = watch.topic
        try:
            while not topic.try_go_live(watch, at):
                await connection.wait_writable()
                page = await topic.source.read(at, limit=PAGE_ENTRIES, max_bytes=PAGE_BYTES)
                if page is None or page.reset:
                    watch.reset(page or Page("", 0, reset=True, entries=[]))
                    if page is None or page.has_ended:
                        return
                elif page.entries:
                    watch.deliver(page.entries)
                    if page.entries[-1].is_terminal and topic.source.ends_with_terminal:
                        return
                else:
                    await topic.settle(page.end)
                at = page.end
        except TidingsError as error:
            # The client resumes by its position on a new connection; going on with a hole is not possible.
            _log.warning("closing a connection whose catch-up failed: %s", error)
            connection.close("server_draining")

    def _check_room(self, connection: Connection, key: str) -> None:
        if key not in connection.watches and len(connection.watches) >= self._settings.max_subscriptions:
            raise RateLimited(
                f"one connection watches at most {self._settings.max_subscriptions} jobs; unsubscribe some"
            )

    @staticmethod
    def _keep(connection: Connection, key: str, watch: JobWatch | FeedWatch) -> None:
        """A second subscription to the same log replaces the first, once it has succeeded."""
        former = connection.watches.get(key)
        connection.watches[key] = watch
        if former is not None:
            former.end()

    def _feed(self, connection: Connection, feed: Any) -> tuple[int, str]:
        identity = connection.identity
        tenant = identity.tenant
        shard = self._store.keyspace.shard_of_tenant(tenant)
        if feed == "mine":
            return shard, f"o:{tenant.scope}"
        if feed == "org":
            if "org:read" not in identity.scopes or tenant.org_scope is None:
                raise Forbidden("the org feed needs the scope org:read and a token with an org")
            return shard, f"g:{tenant.org_scope}"
        if feed == "all":
            if "admin" not in identity.scopes:
                raise Forbidden("the all feed needs the scope admin")
            return 0, "all"
        raise invalid("feed", "must be mine, org or all")

    async def _unsubscribe(self, connection: Connection, body: dict[str, Any]) -> dict[str, Any]:
        only_fields(body, {"job_id", "feed"})
        key = f"feed:{body['feed']}" if "feed" in body else body.get("job_id")
        if not isinstance(key, str):
            raise invalid("job_id", "give the job_id or the feed that was subscribed to")
        watch = connection.watches.pop(key, None)
        if watch is not None:
            watch.end()
        return {"ok": True}

    async def _authenticate(self, connection: Connection, body: dict[str, Any]) -> dict[str, Any]:
        only_fields(body, {"token"})
        token = body.get("token")
        if not isinstance(token, str):
            raise invalid("token", "must be a JWT")
        identity = self._authenticator.verify(token)
        if identity.tenant != connection.identity.tenant:
            raise Forbidden("the new token is for another sub or org; open a new connection for it")
        connection.identity = identity
        self._set_expiry(connection)
        for key, watch in list(connection.watches.items()):
            if not self._still_allowed(connection, watch):
                connection.watches.pop(key).end()
        return {"ok": True}

    def _still_allowed(self, connection: Connection, watch: JobWatch | FeedWatch) -> bool:
        if isinstance(watch, JobWatch):
            return connection.identity.may_read_of(watch.tenant.owner, watch.tenant.org)
        try:
            self._feed(connection, watch.feed)
        except TidingsError:
            return False
        return True


def _check_alive(connection: Connection) -> None:
    """Refuse to begin anything for a client that went away meanwhile: nobody would end it."""
    if connection.has_ended:
        raise Unauthenticated("the connection has ended")
