"""One Socket.IO connection, from CONNECT to its end: subscriptions, and what the server says about itself."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import aiohttp
import socketio
from yarl import URL

from ..cursor import Batch, Gap
from ..policy import WatchPolicy
from ..problems import read_problem
from ..protocol.errors import (
    ServerDraining,
    TidingsError,
    TokenExpired,
    TokenRevoked,
    Unauthenticated,
)
from ..tokens import TokenSource
from . import TransportFailed, Unreadable, read_events, read_job
from .inbox import Inbox

__all__ = ["SocketConnection"]

_LOG = logging.getLogger(__name__)
_LIBRARY_LOG = logging.getLogger("tidings.socketio")
# At INFO the library logs every packet, the one with the token too; at WARNING every dropped connection.
_LIBRARY_LOG.setLevel(logging.ERROR)
_CLOSE_TIMEOUT_S = 2.0
_MAX_DRAIN_S = 60.0


class _Dialer:
    """Stands in for the aiohttp session inside engineio, which forgets why it could not connect and leaves a
    WebSocket open whose handshake was cancelled."""

    closed = False

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self.failure: Exception | None = None

    @property
    def reached(self) -> bool:
        """Whether there was somebody at the other end at all."""
        return not isinstance(self.failure, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))

    async def ws_connect(self, url: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        options["timeout"] = aiohttp.ClientWSTimeout(ws_close=_CLOSE_TIMEOUT_S / 2)
        try:
            self._socket = await self._session.ws_connect(url, **options)
        except Exception as error:
            self.failure = error
            raise
        return self._socket

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()


class SocketConnection:
    """Shared by all watches of a client while it lasts; it does not reconnect.

    Args:
        session: Opens the WebSocket; not closed here.
        tokens: Asked again when the server says that the token is about to expire.
        policy: Time limits and the bound of each inbox.
        on_end: Called once, when the connection has ended for whatever reason but `close()`.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        tokens: TokenSource,
        policy: WatchPolicy,
        on_end: Callable[[SocketConnection], None],
    ) -> None:
        self._tokens = tokens
        self._policy = policy
        self._on_end = on_end
        self._token: str | None = None
        self._inboxes: dict[str, list[Inbox]] = {}
        self._end: TidingsError | None = None
        self._refusal: object = None
        self._retiring: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._dialer = _Dialer(session)
        self._sio = socketio.AsyncClient(
            reconnection=False,
            handle_sigint=False,
            logger=_LIBRARY_LOG,
            engineio_logger=_LIBRARY_LOG,
            http_session=self._dialer,
        )
        self._sio.on("*", self._on_event)
        self._sio.on("connect_error", self._on_refusal)
        self._sio.on("disconnect", self._on_disconnect)

    @property
    def alive(self) -> bool:
        """Whether it can take subscriptions."""
        return self._end is None

    async def open(self, base: URL, token: str) -> None:
        """Connect, as a WebSocket from the start.

        Raises:
            TransportFailed: it did not work out.
            TidingsError: the server refused, with its reason.
        """
        self._token = token
        timeout_s = self._policy.connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._sio.connect(
                    str(base),
                    auth={"token": token},
                    transports=["websocket"],
                    namespaces=["/"],
                    socketio_path=f"{base.raw_path.strip('/')}/socket.io".strip("/"),
                    wait_timeout=timeout_s,
                )
        except Exception as error:  # besides its own errors the library lets those of decoding through
            if isinstance(self._refusal, Mapping):
                raise _refused(self._refusal) from error
            cause = self._dialer.failure or error
            raise TransportFailed(
                f"no Socket.IO connection to {base}: {str(cause) or 'not in time'}",
                reached=self._dialer.reached,
            ) from error
        # The library overlooks an end that comes between CONNECT and here.
        if not self._sio.connected or self._sio.eio.state != "connected":
            self._finish(TransportFailed("the Socket.IO connection was closed at once"))
        if self._end is not None:
            raise self._end

    async def close(self) -> None:
        """Close the connection and end every inbox and task of it. Bounded; safe to repeat."""
        self._on_end = lambda _: None
        self._finish(TransportFailed("the connection was closed"))
        if self._retiring is not None:
            self._retiring.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        for step in (self._sio.disconnect, self._dialer.close, self._sio.eio.wait):
            # Ends the library's writer; on a CLOSE from the server it takes back its own word to that end.
            self._sio.eio.queue.put_nowait(None)
            await _try_in_time(step())

    def enter(self, job_id: str) -> Inbox:
        """Return an inbox for one watch of a job; leave it with `leave()`."""
        inbox = Inbox(job_id, self._policy.max_buffered_events)
        if self._end is not None:
            inbox.end(self._end)
        else:
            self._inboxes.setdefault(job_id, []).append(inbox)
        return inbox

    async def subscribe(self, inbox: Inbox, after: str) -> None:
        """Ask for the events behind a position; the inbox then begins with the answer or ends with a refusal."""
        await self._emit(
            "subscribe",
            {"job_id": inbox.job_id, "after": after},
            lambda *answer: self._take_answer(inbox, answer),
        )

    async def leave(self, inbox: Inbox) -> None:
        """Forget an inbox; the last one of a job ends the server's subscription. Never raises."""
        others = self._inboxes.get(inbox.job_id, [])
        if inbox in others:
            others.remove(inbox)
            if not others:
                del self._inboxes[inbox.job_id]
                await self._emit("unsubscribe", {"job_id": inbox.job_id})

    def _take_answer(self, inbox: Inbox, answer: Sequence[Any]) -> None:
        # Called in the order of the wire, before anything that came behind the answer. A subscription replaces
        # the job's former one, so the other watches of this job get nothing that the answer holds, and nothing
        # that was still to come for them: its position tells them so. That holds when the asker has left, too.
        others = [other for other in self._inboxes.get(inbox.job_id, ()) if other is not inbox]
        try:
            batch = _read_answer(answer[0] if answer else None)
        except Unauthenticated as error:
            self._lose_token(error)
        except TidingsError as error:
            inbox.end(error)
            for other in others:
                other.end(Gap())
        else:
            inbox.answer(batch)
            for other in others:
                other.put(Batch(batch.events, batch.position))

    def _on_event(self, name: str, data: Any = None, *_: object) -> None:
        if not isinstance(data, Mapping):
            return
        if name == "job:reset":
            self._on_reset(data)
        elif name.startswith("job:"):
            self._on_job_event(data)
        elif name == "token:expiring":
            if self._tokens.renewable and (self._renewing is None or self._renewing.done()):
                # Not at once: a token that lives shorter than the server's notice would be renewed without end.
                wait_s = _number(data.get("expires_in_s")) * random.uniform(0.25, 0.5)
                self._renewing = asyncio.create_task(self._renew(wait_s), name="tidings-renew-token")
        elif name == "server:draining":
            wait_s = min(_number(data.get("reconnect_in_ms")) / 1000, _MAX_DRAIN_S)
            self._retiring = asyncio.get_running_loop().call_later(wait_s, self._finish, ServerDraining())
        elif name == "bye":
            self._on_bye(data.get("code"))

    def _on_job_event(self, data: Mapping[str, Any]) -> None:
        inboxes = self._inboxes.get(str(data.get("job_id")), ())
        try:
            batch = Batch(read_events([data])) if inboxes else Batch()
        except Unreadable as error:
            for inbox in inboxes:
                inbox.end(error)
            return
        for inbox in inboxes:
            inbox.put(batch)

    def _on_reset(self, data: Mapping[str, Any]) -> None:
        # Asking again from the reader's position brings the reset as an answer: snapshot and events in one piece.
        job = data.get("job")
        job_id = data.get("job_id") or (job.get("id") if isinstance(job, Mapping) else None)
        for inbox in self._inboxes.get(str(job_id), ()):
            inbox.end(Gap())

    def _on_bye(self, code: object) -> None:
        if code in {TokenExpired.code, TokenRevoked.code}:
            self._lose_token(read_problem({"code": code}))
        elif code == ServerDraining.code:
            self._finish(ServerDraining())
        else:
            self._finish(TransportFailed(f"the server closed the connection: {code}"))

    def _lose_token(self, error: TidingsError) -> None:
        if self._tokens.renewable:
            self._tokens.discard(self._token)
            error = TransportFailed(f"{error.detail}; going on with a new one")
        self._finish(error)

    async def _renew(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        try:
            fresh = await self._tokens.renewed(self._token)
        except TidingsError as error:
            # The server says `bye` when the old token runs out; the watches then see this error themselves.
            _LOG.warning("%s", error)
            return

        def taken(answer: object = None, *_: object) -> None:
            if isinstance(answer, Mapping) and answer.get("ok") is True:
                self._token = fresh

        await self._emit("authenticate", {"token": fresh}, taken)

    async def _emit(
        self, name: str, data: Mapping[str, Any], answered: Callable[..., None] | None = None
    ) -> None:
        try:
            await self._sio.emit(name, dict(data), callback=answered)
        except socketio.exceptions.SocketIOError as error:
            self._finish(TransportFailed(f"the connection is gone: {error}"))

    def _on_refusal(self, why: object = None, *_: object) -> None:
        self._refusal = why

    def _on_disconnect(self, reason: object = None, *_: object) -> None:
        self._finish(TransportFailed(f"the connection dropped: {reason}"))

    def _finish(self, error: TidingsError) -> None:
        if self._end is not None:
            return
        self._end = error
        for inbox in [inbox for inboxes in self._inboxes.values() for inbox in inboxes]:
            inbox.end(error)
        self._inboxes.clear()
        self._on_end(self)


async def _try_in_time(work: Coroutine[Any, Any, object]) -> None:
    """Do a part of closing within its time. In a task of its own, since the library swallows cancellations."""
    task = asyncio.create_task(work, name="tidings-close-step")
    try:
        await asyncio.wait({task}, timeout=_CLOSE_TIMEOUT_S)
        if task.done() and (error := task.exception()) is not None:
            _LOG.debug("closing a connection: %r", error)
    finally:
        task.cancel()


def _number(value: object) -> float:
    return max(0.0, float(value)) if isinstance(value, (int, float)) else 0.0


def _refused(refusal: Mapping[str, Any]) -> TidingsError:
    problem = refusal.get("data")
    if isinstance(problem, Mapping):
        return read_problem(problem)
    return read_problem({"code": refusal.get("message"), "status": 503})


def _read_answer(answer: object) -> Batch:
    if not isinstance(answer, Mapping):
        raise Unreadable("the server answered a subscription with nothing")
    if answer.get("ok") is not True:
        raise read_problem(answer.get("error"))
    if not isinstance(answer.get("position"), str):
        raise Unreadable("the server answered a subscription without a position")
    reset = answer.get("reset") is True
    return Batch(
        read_events(answer.get("events", [])),
        answer["position"],
        answer=True,
        reset=reset,
        job=read_job(answer.get("job")) if reset else None,
    )
