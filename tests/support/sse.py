"""A strict reader of event streams, for tests of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from tests.support.rest import Rest, bearer
from tests.support.timing import scaled

__all__ = ["Message", "Sse", "stream"]


@dataclass
class Message:
    """One message of a stream."""

    event: str
    id: str | None
    data: Any


class Sse:
    """Reads a stream as a browser does, strictly."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.comments = 0
        self.retry: int | None = None

    async def next(self) -> Message | None:
        """Return the next message, or None at the end."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(scaled(20)):
            async for raw in self.response.content:
                line = raw.decode().removesuffix("\n")
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "retry" in fields:
                    self.retry = int(fields.pop("retry"))
                elif fields:
                    return Message(fields["event"], fields.get("id"), orjson.loads(fields["data"]))
        assert not fields, "the stream ended within a message"
        return None

    async def rest(self) -> list[Message]:
        """Return all messages to the end."""
        found = []
        while (message := await self.next()) is not None:
            found.append(message)
        return found


@asynccontextmanager
async def stream(rest: Rest, path: str, **headers: str) -> AsyncIterator[Sse]:
    """Open a stream."""
    sent = bearer() | {"Accept": "text/event-stream"} | headers
    async with rest.session.get(rest.url + path, headers=sent) as response:
        assert response.status == 200, await response.text()
        yield Sse(response)
