"""A store behind a proxy that can lose the reply to a call: the call took effect, and the client cannot know."""

from __future__ import annotations

import asyncio
import contextlib
import random
from enum import Enum
from pathlib import Path
from typing import Self
from urllib.parse import quote

__all__ = ["Fault", "LossyProxy"]


class Fault(Enum):
    """How a reply is lost."""

    CLOSE = "close"
    """The connection breaks before the reply comes through."""
    SILENCE = "silence"
    """The reply never comes, and the connection stays."""


class LossyProxy:
    """A proxy between unix sockets. ``arm`` it to lose the reply to the next script call. Use as a context manager."""

    def __init__(self, target: Path, socket: Path) -> None:
        self.url = f"unix://{quote(str(socket))}"
        self.calls = 0
        """How many script calls were passed on."""
        self.lost = 0
        """How many requests and replies were lost."""
        self._target = target
        self._socket = socket
        self._fault: Fault | None = None
        self._random: random.Random | None = None
        self._rate = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def arm(self, fault: Fault) -> None:
        """Lose the reply to the next script call."""
        self._fault = fault

    def lose_at_random(self, source: random.Random, *, rate: float) -> None:
        """From now on lose this share of the requests, and of the replies, and break the connection each time."""
        self._random, self._rate = source, rate

    def _is_lost(self) -> bool:
        is_lost = self._random is not None and self._random.random() < self._rate
        self.lost += is_lost
        return is_lost

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, str(self._socket))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        store_reader, store_writer = await asyncio.open_unix_connection(str(self._target))
        try:
            # One request is on its way at a time, so a reply belongs to the request before it.
            while request := await reader.read(1 << 20):
                is_call = any(name in request for name in (b"\r\nFCALL\r\n", b"\r\nEVAL\r\n"))
                if is_call and self._is_lost():
                    return
                self.calls += is_call
                store_writer.write(request)
                reply = await store_reader.read(1 << 20)
                if is_call and self._fault is not None:
                    fault, self._fault = self._fault, None
                    if fault is Fault.CLOSE:
                        return
                    self.lost += 1
                    continue
                if is_call and self._is_lost():
                    return
                writer.write(reply)
        finally:
            writer.close()
            store_writer.close()
            for end in (writer, store_writer):
                with contextlib.suppress(OSError):
                    await end.wait_closed()
