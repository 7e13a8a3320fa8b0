"""Following a job by Server-Sent Events over one long GET: the middle rung, pushed like a socket but one-way."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp
import orjson

from ..http import CONNECT_TIMEOUT_S, Http
from ..policy import WatchPolicy
from ..protocol.events import Event
from . import Batch, ConnectionState, TransportFailed, Unreadable, http_as_transport, read_events, read_job
from .eventstream import EventStreamParser, StreamMessage, StreamTooLong

__all__ = ["ServerSentEvents"]

_MAX_MESSAGE_BYTES = 8 << 20
_MEDIA_TYPE = "text/event-stream"


class ServerSentEvents:
    """Reads `GET /api/jobs/{id}/events` as an event stream."""

    name = "sse"
    state = ConnectionState.LIVE

    def __init__(self, http: Http, policy: WatchPolicy) -> None:
        self._http = http
        self._policy = policy

    async def follow(self, job_id: str, after: str) -> AsyncGenerator[Batch, None]:
        """Yield what each chunk of the stream completes; see `Transport.follow`.

        The answer's head alone does not count as a sign of life: a proxy that holds the body back would pass.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self._policy.silence_timeout_s
        )
        parser = EventStreamParser(_MAX_MESSAGE_BYTES)
        with http_as_transport():
            async with self._http.exchange(
                "GET",
                f"api/jobs/{job_id}/events",
                params={"after": after},
                headers={"Accept": _MEDIA_TYPE},
                timeout=timeout,
            ) as response:
                if response.content_type != _MEDIA_TYPE:
                    raise TransportFailed(f"asked for an event stream, got {response.content_type}")
                answered = False
                async for chunk in response.content.iter_any():
                    for batch in _batches(_parsed(parser, chunk), answer=not answered):
                        answered = answered or bool(batch.events)
                        yield batch
            raise TransportFailed("the event stream ended before the job did")


def _parsed(parser: EventStreamParser, chunk: bytes) -> list[StreamMessage]:
    try:
        return parser.feed(chunk)
    except StreamTooLong as error:
        raise Unreadable(str(error)) from error


def _batches(messages: list[StreamMessage], *, answer: bool) -> list[Batch]:
    """Group a chunk's messages: runs of events, and resets by themselves; an empty batch is a sign of life."""
    batches: list[Batch] = []
    events: list[Event] = []
    for message in messages:
        try:
            body = orjson.loads(message.data)
        except orjson.JSONDecodeError as error:
            raise Unreadable(f"the server sent an event that is not JSON: {error}") from error
        if message.event != "reset":
            events += read_events([body])
            continue
        if not isinstance(body, dict) or not isinstance(body.get("position"), str):
            raise Unreadable("the server reset a stream without saying to where")
        batches.append(Batch(events, answer=answer))
        batches.append(
            Batch(position=body["position"], answer=True, reset=True, job=read_job(body.get("job")))
        )
        events, answer = [], True
    return [*batches, Batch(events, answer=answer)]
