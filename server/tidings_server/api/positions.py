"""Positions and waiting as they come in requests: read, or refused by the name of their field."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field

from tidings.protocol import BEGINNING, Position

from .faults import invalid
from .sse import wants_event_stream

__all__ = ["MAX_WAIT_S", "After", "Wait", "resume_point"]

MAX_WAIT_S = 55
"""Most proxies cut a silent answer off after a minute."""

After = Annotated[
    str | None,
    Field(
        description="A position from an earlier answer, on any transport; `0` or nothing for the beginning.",
        examples=["k3f9:7"],
    ),
]
Wait = Annotated[
    float,
    Field(
        ge=0,
        le=MAX_WAIT_S,
        allow_inf_nan=False,
        description="With nothing to tell, wait so many seconds for news. A stream waits anyway.",
    ),
]


def resume_point(request: web.Request, after: str | None) -> Position:
    """Return the position that a request resumes from; ``BEGINNING`` when it names none.

    Raises:
        InvalidInput: the text, which is untrusted, has not the form of a position.
    """
    field, text = "after", after
    if wants_event_stream(request) and (last := request.headers.get("Last-Event-ID")):
        field, text = "Last-Event-ID", last
    if text is None:
        return BEGINNING
    try:
        return Position.parse(text)
    except ValueError as error:
        raise invalid(
            field, "malformed_position", "Send a position as an earlier answer gave it, such as k3f9:7, or 0"
        ) from error
