"""What ``tidings dev`` writes: its children's lines, each with its child's name, and what it has to announce."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final, TextIO

__all__ = ["Terminal"]

_COLOURS: Final = {"store": "35", "server": "36", "worker": "32", "dev": "33"}
_NAME_WIDTH = 6
_CHUNK_BYTES = 65_536


class Terminal:
    """Writes lines to standard error and announcements to standard output, whole and in order.

    Args:
        as_json: announce each event as one JSON object a line, and nothing else on standard output.
        on_gone: called once when nobody reads any more, such as a pipe that was closed.
    """

    def __init__(self, *, as_json: bool, on_gone: Callable[[], None]) -> None:
        self._as_json = as_json
        self._on_gone = on_gone
        self._gone = False
        self._coloured = sys.stderr.isatty() and "NO_COLOR" not in os.environ

    def say(self, name: str, text: str) -> None:
        """Write one line of a part of the stack."""
        prefix = f"{name:<{_NAME_WIDTH}} |"
        if self._coloured:
            prefix = f"\x1b[{_COLOURS.get(name, '33')}m{prefix}\x1b[0m"
        self._write(sys.stderr, f"{prefix} {text}\n")

    def announce(self, event: str, text: str | None = None, **fields: Any) -> None:
        """Announce an event: as JSON with its fields, or as ``text`` for people, where there is one."""
        if self._as_json:
            self._write(sys.stdout, json.dumps({"event": event, **fields}) + "\n")
        elif text is not None:
            self._write(sys.stdout, text)

    async def relay(self, name: str, reader: asyncio.StreamReader) -> None:
        """Write what a child writes, line by line, until it is at its end; a line over 64 KiB comes in parts."""
        rest = b""
        while chunk := await reader.read(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.say(name, line.decode("utf-8", "replace"))
            if len(rest) > _CHUNK_BYTES:
                self.say(name, rest.decode("utf-8", "replace"))
                rest = b""
        if rest:
            self.say(name, rest.decode("utf-8", "replace"))

    def _write(self, stream: TextIO, text: str) -> None:
        if self._gone:
            return
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            self._gone = True
            self._on_gone()
