"""One interface over three transports: batches of a job's events from a position on, or an error."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol

from pydantic import ValidationError

from ..cursor import Batch
from ..http import Unreachable
from ..protocol.errors import ConnectionLost, InternalError, MethodNotAllowed, NotAcceptable
from ..protocol.events import Event
from ..protocol.models import EventPage, Job

__all__ = [
    "Batch",
    "ConnectionState",
    "Transport",
    "TransportFailed",
    "Unreadable",
    "http_as_transport",
    "read_events",
    "read_job",
    "read_page",
]


class ConnectionState(StrEnum):
    """How a watch is connected: pushed events, repeated requests, or not at all at the moment."""

    LIVE = "live"
    POLLING = "polling"
    OFFLINE = "offline"


class TransportFailed(ConnectionLost):
    """One transport does not work at the moment; another, or a later attempt, may.

    ``reached`` is false when no connection to the server came about, which speaks against no transport in
    particular. ``paced`` says that the transport has already waited before this attempt.
    """

    def __init__(
        self, detail: str, *, reached: bool = True, paced: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail, retry_after_s=retry_after_s)
        self.reached = reached
        self.paced = paced


class Unreadable(InternalError):
    """The server sent something this client can't read; asking again would bring the same."""


class Transport(Protocol):
    """A way to follow a job."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def state(self) -> ConnectionState:
        """What a watch is while it follows over this transport."""
        ...

    def follow(self, job_id: str, after: str) -> AsyncGenerator[Batch, None]:
        """Yield what follows position ``after``, without end.

        The first batch, possibly an empty one, says that the transport works. The generator holds a connection
        and must be closed with ``aclose()``. It never ends by itself.

        Raises:
            TidingsError: a temporary one when the stream broke, whatever was yielded before; any other when the
                server refused for good.
        """
        ...


@contextmanager
def http_as_transport() -> Iterator[None]:
    """Turn what speaks against this use of HTTP alone into `TransportFailed`; another transport may do."""
    try:
        yield
    except (TransportFailed, Unreadable):
        raise
    except (ConnectionLost, InternalError, MethodNotAllowed, NotAcceptable) as error:
        raise TransportFailed(
            error.detail, reached=not isinstance(error, Unreachable), retry_after_s=error.retry_after_s
        ) from error


def read_events(raw: object) -> list[Event]:
    """Read envelopes as the wire brings them.

    Raises:
        Unreadable: something else arrived.
    """
    if not isinstance(raw, list):
        raise Unreadable("the server sent something else where events belong")
    try:
        return [Event.model_validate(entry) for entry in raw]
    except ValidationError as error:
        raise Unreadable(f"the server sent an event this client can't read: {_first(error)}") from error


def read_job(raw: object) -> Job:
    """Read the job snapshot of a reset.

    Raises:
        Unreadable: it is none.
    """
    try:
        return Job.model_validate(raw)
    except ValidationError as error:
        raise Unreadable(f"the server sent a job this client can't read: {_first(error)}") from error


def read_page(body: bytes) -> EventPage:
    """Read the answer to a long-poll.

    Raises:
        Unreadable: it is none.
    """
    try:
        return EventPage.model_validate_json(body)
    except ValidationError as error:
        raise Unreadable(
            f"the server sent a page of events this client can't read: {_first(error)}"
        ) from error


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc']) or 'it'}: {fault['msg']}"
