"""Server-Sent Events: one response that is written message by message (WHATWG HTML §9.2)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from tidings.protocol.errors import TidingsError

from ..streams import End, Ended

__all__ = [
    "EVENT_STREAM",
    "HEARTBEAT_S",
    "RECONNECT_MS",
    "EventStream",
    "Message",
    "stream_to_end",
    "wants_event_stream",
]

_log = logging.getLogger(__name__)

EVENT_STREAM: Final = "text/event-stream"
HEARTBEAT_S: Final = 15.0
RECONNECT_MS: Final = 2000


def wants_event_stream(request: web.Request) -> bool:
    """Tell whether a GET's ``Accept`` names ``text/event-stream``, at a quality above zero."""
    if request.method != hdrs.METH_GET:
        return False
    for field in request.headers.getall(hdrs.ACCEPT, []):
        for offer in field.split(","):
            media_type, *parameters = (part.strip().lower() for part in offer.split(";"))
            if media_type == EVENT_STREAM and not any(
                parameter.replace(" ", "") in ("q=0", "q=0.0", "q=0.00", "q=0.000")
                for parameter in parameters
            ):
                return True
    return False


class Message(NamedTuple):
    """One message. ``data`` is a single line, as JSON is; without a position the client keeps the last one's."""

    event: str
    position: str | None
    data: bytes

    def encode(self) -> bytes:
        """Return the message as it is written."""
        place = b"" if self.position is None else b"id: %s\n" % self.position.encode()
        return place + b"event: %s\ndata: %s\n\n" % (self.event.encode(), self.data)


class EventStream:
    """The response of one stream. A client that takes nothing is cut off by its ``Connection``, and resumes by position."""

    def __init__(self) -> None:
        self.response = web.StreamResponse(
            headers={
                "Content-Type": f"{EVENT_STREAM}; charset=utf-8",
                "Cache-Control": "no-store",
                # nginx would hold events back to fill its buffers.
                "X-Accel-Buffering": "no",
                "Vary": "Authorization, Accept",
            }
        )

    async def start(self, request: web.Request) -> None:
        """Send the head and tell the client how soon to reconnect."""
        self.response.enable_chunked_encoding()
        await self.response.prepare(request)
        await self.response.write(b"retry: %d\n\n" % RECONNECT_MS)

    async def send(self, messages: Sequence[Message]) -> None:
        """Send messages in one write."""
        await self.response.write(b"".join(message.encode() for message in messages))

    async def beat(self) -> None:
        """Send a comment, so that proxies and the client see that the stream lives."""
        await self.response.write(b": beat\n\n")

    async def finish(self) -> None:
        """End the response properly, so that the client knows it has all of it."""
        await self.response.write_eof()


async def stream_to_end(out: EventStream, written: Awaitable[None]) -> None:
    """Await ``written``, which writes to ``out``, and end the response properly whenever somebody is there to see it.

    The answer's head is sent already, so nothing that happens now can become a problem document: the stream ends, the
    client asks again from its position, and is told then.
    """
    try:
        await written
    except Ended as end:
        if end.reason is End.CLIENT_GONE:
            return
    except TidingsError as error:
        _log.info("a stream ended early: %s", error)
    except ConnectionError:
        return
    await out.finish()
