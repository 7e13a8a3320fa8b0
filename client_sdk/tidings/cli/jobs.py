"""The client's commands about jobs: submit, watch, status, cancel, retry, jobs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any

import typer

from ..client import Client
from ..cursor import Reset, Snapshot, WatchItem
from ..protocol.events import Event
from ..protocol.models import MAX_PRIORITY, Job, JobStatus
from ..protocol.position import Position
from ..protocol.states import EventKind, JobState
from .calling import JobIdArgument, JsonOption, answer, call_server, to_json
from .display import JobDisplay, make_console, table_of
from .inputs import read_input, read_object
from .messages import one_line

__all__ = ["COMMANDS", "register"]

_NOW = "now"


def _position(text: str) -> str:
    try:
        Position.parse("0" if text == _NOW else text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}") from error
    return text


def _time(text: str | None, option: str) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no time; give one like 2026-11-23T10:00:00+01:00 (local without the offset)",
            param_hint=option,
        ) from error


def submit(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="The job type, such as report.render.")],
    input: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="JSON|@FILE",
            help="The job's input: a JSON object, or @file.json. For report.render also @file.csv and @file.md;"
            " of several --input the sections are put one behind the other.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the job to its end.")] = False,
    queue: Annotated[str | None, typer.Option(help="Instead of the type's own queue.")] = None,
    priority: Annotated[int | None, typer.Option(min=1, max=MAX_PRIORITY, help="1 is first.")] = None,
    delay: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Not before this time has passed.")
    ] = None,
    run_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not before this time (ISO 8601).")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag to find the job by; may be repeated.")] = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="Kept with the job.")] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The same key and input make one job only, for 24 hours."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job."""
    content = read_input(input or [])
    about = {} if metadata is None else read_object(metadata, "--metadata")
    due = _time(run_at, "--run-at")
    if due is not None and delay is not None:
        raise typer.BadParameter("give one of them, not both", param_hint="--delay, --run-at")

    async def work(client: Client) -> bool:
        job = await client.submit(
            type,
            content,
            queue=queue,
            priority=priority,
            delay_s=delay,
            run_at=due,
            tags=tag or (),
            metadata=about,
            idempotency_key=idempotency_key,
        )
        if not (as_json and watch):
            answer(job, as_json, f"{job.id} {job.status}")
        return not watch or await _follow(client, job.id, "0", as_json)

    call_server(work)


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
        return await _follow(client, id, None if after == _NOW else after, as_json)

    call_server(work)


def status(id: JobIdArgument, as_json: JsonOption = False) -> None:
    """Show where a job stands."""

    async def work(client: Client) -> bool:
        now = await client.status(id)
        answer(now, as_json, _line_of(now))
        return True

    call_server(work)


def cancel(
    id: JobIdArgument,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept with the job.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a job: at once when it has not begun, else when it next looks."""
    call_server(_printing(lambda client: client.cancel(id, reason=reason), as_json, "cancelling"))


def retry(id: JobIdArgument, as_json: JsonOption = False) -> None:
    """Submit a failed or cancelled job again, as a new job."""
    call_server(_printing(lambda client: client.retry(id), as_json, ""))


def jobs(
    status: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    type: Annotated[str | None, typer.Option(help="Only jobs of this type.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.")] = None,
    created_after: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only younger jobs (ISO 8601).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List your jobs, newest first; with --json one job a line."""
    since = _time(created_after, "--created-after")

    async def work(client: Client) -> bool:
        found = client.jobs(status=status, type=type, queue=queue, tag=tag, created_after=since, limit=limit)
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


_COMMANDS: tuple[Callable[..., None], ...] = (submit, watch, status, cancel, retry, jobs)
COMMANDS = frozenset(command.__name__ for command in _COMMANDS)


def register(app: typer.Typer) -> None:
    """Add the client's commands."""
    for command in _COMMANDS:
        app.command()(command)


def _printing(
    call: Callable[[Client], Coroutine[Any, Any, Job]], as_json: bool, while_running: str
) -> Callable[[Client], Coroutine[Any, Any, bool]]:
    async def work(client: Client) -> bool:
        job = await call(client)
        state = while_running if while_running and job.status is JobState.RUNNING else job.status.value
        answer(job, as_json, f"{job.id} {state}")
        return True

    return work


async def _follow(client: Client, job_id: str, after: str | None, as_json: bool) -> bool:
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


def _line_of(now: JobStatus) -> str:
    parts = [now.id, now.type, now.status.value]
    if now.progress is not None and now.progress.percent is not None:
        parts.append(f"{now.progress.percent:.0f} %")
    if now.progress is not None and now.progress.message:
        parts.append(now.progress.message)
    if now.queue_position is not None:
        parts.append(f"(number {now.queue_position} in the queue)")
    return one_line(" ".join(parts))
