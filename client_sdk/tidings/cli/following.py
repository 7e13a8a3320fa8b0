"""Following a job to its end, on the terminal or as one JSON line an event."""

from __future__ import annotations

from typing import Any

import typer

from ..client import Client
from ..cursor import Reset, Snapshot, WatchItem
from ..protocol.events import Event
from ..protocol.states import EventKind, JobState
from .calling import to_json
from .display import JobDisplay, make_console

__all__ = ["follow"]


async def follow(client: Client, job_id: str, after: str | None, as_json: bool) -> bool:
    """Show a job to its end and tell whether it completed."""
    last: WatchItem | None = None
    if as_json:
        async with client.watch(job_id, after) as watch:
            async for last in watch:
                typer.echo(to_json(_as_line(last)))
    else:
        with JobDisplay(make_console()) as display:
            async with client.watch(job_id, after, on_connection=display.show_connection) as watch:
                async for last in watch:
                    display.show(last)
    if isinstance(last, Event) and last.is_terminal:
        return last.kind is EventKind.COMPLETED
    # Nothing followed the position, since the job had ended there.
    return (await client.get(job_id)).status is JobState.COMPLETED


def _as_line(item: WatchItem) -> dict[str, Any]:
    """An event's envelope as on the wire; what is no event has no ``kind``."""
    content = item.model_dump()
    if isinstance(item, Snapshot):
        return {"reset": isinstance(item, Reset), **content}
    return content if item.prev is not None else {name: content[name] for name in content if name != "prev"}
