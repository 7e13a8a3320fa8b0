"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from ..protocol.models import MAX_PRIORITY

__all__ = [
    "DelayOption",
    "PriorityOption",
    "RunAtOption",
    "TimeText",
    "YesOption",
    "check_one",
    "read_time",
]

PriorityOption = Annotated[int | None, typer.Option(min=1, max=MAX_PRIORITY, help="1 is first.")]
DelayOption = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Not before this time has passed.")
]
RunAtOption = Annotated[str | None, typer.Option(metavar="TIME", help="Not before this time (ISO 8601).")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it; without this they are only counted.")]
TimeText = str | None


def read_time(text: TimeText, option: str) -> datetime | None:
    """Read an ISO 8601 time, local without an offset.

    Raises:
        typer.BadParameter: it is none.
    """
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no time; give one like 2026-11-23T10:00:00+01:00 (local without the offset)",
            param_hint=option,
        ) from error


def check_one(*options: str, given: int) -> None:
    """Refuse more than one of options that say the same thing."""
    if given > 1:
        raise typer.BadParameter("give one of them, not both", param_hint=", ".join(options))
