"""A pipe from a child process, read on the event loop."""

from __future__ import annotations

import asyncio
import os
from typing import Self

__all__ = ["Pipe"]


class Pipe:
    """Open with ``open``; the child inherits ``write_fd``, which is then closed here. Close with ``close``."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport, write_fd: int) -> None:
        self.reader = reader
        self.write_fd = write_fd
        self._transport = transport

    @classmethod
    async def open(cls) -> Self:
        """Make a pipe on the running loop."""
        read_fd, write_fd = os.pipe()
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader, loop=loop), os.fdopen(read_fd, "rb", 0)
        )
        return cls(reader, transport, write_fd)

    def close_write_end(self) -> None:
        """Leave the write end to the child, so that the reader is at its end when the child is."""
        os.close(self.write_fd)

    def close(self) -> None:
        """Close the read end."""
        self._transport.close()
