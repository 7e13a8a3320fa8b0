"""The client's commands that look at jobs and repeat them: watch, status, retry, jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from ..client import Client
from ..protocol.models import JobStatus
from ..protocol.position import Position
from ..protocol.states import JobState
from .calling import JobIdArgument, JsonOption, answer, call_server
from .display import make_console, table_of
from .following import follow
from .messages import WAITS, one_line
from .options import read_time

__all__ = ["COMMANDS", "register"]

_NOW = "now"


def _position(text: str) -> str:
    try:
        Position.parse("0" if text == _NOW else text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}") from error
    return text


def watch(
    id: JobIdArgument,
    after: Annotated[
        str,
        typer.Option(
            metavar="now|POSITION",
            help="Go on from here; 0 is the job's beginning, now shows the job as it is and what is new.",
            callback=_position,
        ),
    ] = "0",
    as_json: JsonOption = False,
) -> None:
    """Follow a job to its end. Exits with 0 when it completed; with --json prints one event a line."""

    async def work(client: Client) -> bool:
        # Before waiting for a server to come back, see that it is there and knows the job.
        await client.get(id)
        return await follow(client, id, None if after == _NOW else after, as_json)

    call_server(work)


def status(id: JobIdArgument, as_json: JsonOption = False) -> None:
    """Show where a job stands."""

    async def work(client: Client) -> bool:
        now = await client.status(id)
        answer(now, as_json, _line_of(now))
        return True

    call_server(work)


def retry(id: JobIdArgument, as_json: JsonOption = False) -> None:
    """Submit a failed or cancelled job again, as a new job."""

    async def work(client: Client) -> bool:
        job = await client.retry(id)
        answer(job, as_json, f"{job.id} {job.status}")
        return True

    call_server(work)


def jobs(
    status: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    type: Annotated[str | None, typer.Option(help="Only jobs of this type.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.")] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="ID", help="Only the steps of this flow that are jobs already.")
    ] = None,
    created_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only younger jobs (ISO 8601).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List your jobs, newest first; with --json one job a line."""
    since = read_time(created_after, "--created-after")

    async def work(client: Client) -> bool:
        found = client.jobs(
            status=status, type=type, queue=queue, tag=tag, parent=parent, created_after=since, limit=limit
        )
        listed = [job async for job in found]
        if as_json:
            for job in listed:
                answer(job, True, "")
        elif listed:
            make_console().print(table_of(listed))
        else:
            typer.echo("no jobs")
        return True

    call_server(work)


_COMMANDS: tuple[Callable[..., None], ...] = (watch, status, retry, jobs)
COMMANDS = frozenset(command.__name__ for command in _COMMANDS)


def register(app: typer.Typer) -> None:
    """Add the client's commands."""
    for command in _COMMANDS:
        app.command()(command)


def _line_of(now: JobStatus) -> str:
    parts = [now.id, now.type, now.status.value]
    if now.progress is not None and now.progress.percent is not None:
        parts.append(f"{now.progress.percent:.0f} %")
    if now.progress is not None and now.progress.message:
        parts.append(now.progress.message)
    if now.queue_position is not None:
        parts.append(f"(number {now.queue_position} in the queue)")
    if now.eta_s is not None:
        parts.append(f"(about {now.eta_s:.0f} s left)")
    if now.slow:
        parts.append("(slower than usual)")
    if now.waiting_for is not None:
        parts.append(f"(waits: {WAITS[now.waiting_for]})")
    return one_line(" ".join(parts))
