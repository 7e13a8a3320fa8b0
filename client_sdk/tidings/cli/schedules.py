"""The operator's commands about schedules: list, next, pause, resume, run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from ..admin import ScheduleAction
from ..client import Client
from ..protocol.schedules import ScheduleInfo
from .calling import JsonOption, answer, call_server
from .display import make_console
from .messages import one_line

__all__ = ["COMMANDS", "register", "schedule_table"]

COMMANDS = frozenset({"schedules"})

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The schedule.")]
CountOption = Annotated[int, typer.Option("--count", min=1, max=100, help="How many due times.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    schedules = typer.Typer(help="List schedules; look ahead, pause, resume or run one (scope admin).")
    app.add_typer(schedules, name="schedules")

    @schedules.callback(invoke_without_command=True)
    def group(context: typer.Context, as_json: JsonOption = False) -> None:
        """List schedules; look ahead, pause, resume or run one (scope admin). With --json one schedule a line."""
        if context.invoked_subcommand is None:
            call_server(lambda client: _list(client, as_json))

    @schedules.command("list")
    def list_schedules(as_json: JsonOption = False) -> None:
        """List all schedules; with --json one a line."""
        call_server(lambda client: _list(client, as_json))

    @schedules.command("next")
    def look_ahead(name: NameArgument, count: CountOption = 10, as_json: JsonOption = False) -> None:
        """Show when a schedule is due, in its own time zone."""
        call_server(lambda client: _look_ahead(client, name, count, as_json))

    @schedules.command()
    def pause(name: NameArgument, as_json: JsonOption = False) -> None:
        """Let a schedule rest; what is due meanwhile is passed over."""
        call_server(lambda client: _steer(client, name, "pause", as_json))

    @schedules.command()
    def resume(name: NameArgument, as_json: JsonOption = False) -> None:
        """Let a schedule go on with its next due time."""
        call_server(lambda client: _steer(client, name, "resume", as_json))

    @schedules.command()
    def run(name: NameArgument, as_json: JsonOption = False) -> None:
        """Run a schedule now, whatever is open and also while it is paused."""
        call_server(lambda client: _run(client, name, as_json))


async def _list(client: Client, as_json: bool) -> bool:
    listed = await client.admin.schedules()
    if as_json:
        for schedule in listed:
            answer(schedule, True, "")
    elif listed:
        make_console().print(schedule_table(listed))
    else:
        typer.echo("no schedules")
    return True


async def _look_ahead(client: Client, name: str, count: int, as_json: bool) -> bool:
    found = await client.admin.schedule_runs(name, count)
    if as_json:
        answer(found, True, "")
    for run in [] if as_json else found.runs:
        typer.echo(f"{datetime.fromisoformat(run.local):%Y-%m-%d %H:%M:%S %z} {one_line(found.time_zone)}")
    return True


async def _steer(client: Client, name: str, action: ScheduleAction, as_json: bool) -> bool:
    schedule = await client.admin.steer_schedule(name, action)
    answer(schedule, as_json, f"{one_line(schedule.name)} {_state(schedule)}")
    return True


async def _run(client: Client, name: str, as_json: bool) -> bool:
    job = await client.admin.run_schedule(name)
    answer(job, as_json, f"{job.id} {job.status.value}")
    return True


def schedule_table(schedules: list[ScheduleInfo]) -> Table:
    """Make a table of schedules: what and when, then what became of it."""
    table = Table(box=None, pad_edge=False)
    for name in ("schedule", "type", "when", "state", "last run"):
        table.add_column(name, no_wrap=True)
    for name in ("runs", "skipped", "missed"):
        table.add_column(name, no_wrap=True, justify="right")
    for schedule in schedules:
        table.add_row(
            one_line(schedule.name),
            one_line(schedule.type),
            one_line(_when(schedule)),
            _state(schedule),
            _time(schedule.last_run_at),
            str(schedule.runs),
            str(schedule.skipped),
            str(schedule.missed),
        )
    return table


def _when(schedule: ScheduleInfo) -> str:
    if schedule.cron is None:
        return f"every {schedule.every_s:g} s"
    return f"{schedule.cron} {schedule.time_zone}"


def _state(schedule: ScheduleInfo) -> str:
    if schedule.paused:
        return "paused"
    if schedule.next_run_at is None:
        return "active, never due" if schedule.enabled else "disabled"
    return f"due {_time(schedule.next_run_at)}"


def _time(at: datetime | None) -> str:
    """Write a time as the terminal's own clock shows it."""
    return "–" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
