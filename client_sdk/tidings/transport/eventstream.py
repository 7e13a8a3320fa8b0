"""A parser of `text/event-stream` (WHATWG HTML, 9.2.6), fed with bytes as they come. Pure."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["EventStreamParser", "StreamMessage", "StreamTooLong"]


class StreamMessage(NamedTuple):
    """One dispatched message; ``id`` is the newest one the stream has set, which may be an earlier message's."""

    event: str
    data: str
    id: str


class StreamTooLong(Exception):
    """One message is longer than the bound."""


class EventStreamParser:
    """Turns chunks of bytes, cut anywhere, into messages.

    Args:
        max_message_bytes: Bound of what is kept of a message that is not complete.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes
        self._rest = b""
        self._held_bytes = 0
        self._after_cr = False
        self._at_start = True
        self._event = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, chunk: bytes) -> list[StreamMessage]:
        """Return the messages that ``chunk`` completes. Comments complete none.

        Raises:
            StreamTooLong: a message exceeds the bound; the stream can't be read on.
        """
        if self._after_cr and chunk:
            # A CR at the end of the last chunk has ended its line already; its LF belongs to it.
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        text = self._rest + chunk
        self._after_cr = text.endswith(b"\r")
        lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop()
        messages = [message for line in lines if (message := self._line(line)) is not None]
        if len(self._rest) + self._held_bytes > self._max_bytes:
            raise StreamTooLong(f"a message of the event stream is longer than {self._max_bytes} bytes")
        return messages

    def _line(self, line: bytes) -> StreamMessage | None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._dispatch()
        self._held_bytes += len(line)
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> StreamMessage | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._held_bytes = "", [], 0
        return StreamMessage(event, "\n".join(data), self._id) if data else None
