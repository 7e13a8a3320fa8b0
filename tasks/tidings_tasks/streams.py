"""Output streams of a job: small texts, such as LLM tokens, joined into fewer output events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

__all__ = ["OutputStream", "SyncOutputStream"]


class OutputStream:
    """What is written within 50 ms becomes one output event. The rest is sent with the outcome at the latest."""

    def __init__(self, write: Callable[[str, str], Awaitable[None]], name: str) -> None:
        self._write, self._name = write, name

    async def write(self, text: str) -> None:
        """Add ``text`` to the stream's next output event.

        Raises:
            InvalidEvent: the text is too large, or no text.
        """
        await self._write(self._name, text)


class SyncOutputStream:
    """``OutputStream`` for plain functions."""

    def __init__(self, write: Callable[[str, str], None], name: str) -> None:
        self._write, self._name = write, name

    def write(self, text: str) -> None:
        """Add ``text`` to the stream's next output event; see ``OutputStream.write``."""
        self._write(self._name, text)
