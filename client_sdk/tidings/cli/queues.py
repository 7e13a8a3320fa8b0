"""The operator's commands about queues: list, pause, resume, drain, purge."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from ..admin import QueueAction
from ..client import Client
from ..protocol.admin import Queue
from .calling import JsonOption, answer, call_server
from .display import make_console
from .messages import count_of, counted, one_line
from .options import YesOption

__all__ = ["COMMANDS", "queue_table", "register"]

COMMANDS = frozenset({"queues"})

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The queue.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    queues = typer.Typer(help="List queues; pause, resume, drain or purge one (scope admin).")
    app.add_typer(queues, name="queues")

    @queues.callback(invoke_without_command=True)
    def list_queues(context: typer.Context, as_json: JsonOption = False) -> None:
        """List queues; pause, resume, drain or purge one (scope admin). With --json one queue a line."""
        if context.invoked_subcommand is None:
            call_server(lambda client: _list(client, as_json))

    @queues.command()
    def pause(name: NameArgument, as_json: JsonOption = False) -> None:
        """Let no more jobs of a queue begin; what runs goes on."""
        call_server(lambda client: _steer(client, name, "pause", as_json))

    @queues.command()
    def resume(name: NameArgument, as_json: JsonOption = False) -> None:
        """Let a queue's jobs begin again, and take new ones."""
        call_server(lambda client: _steer(client, name, "resume", as_json))

    @queues.command()
    def drain(name: NameArgument, as_json: JsonOption = False) -> None:
        """Refuse new jobs for a queue, and run those that are there."""
        call_server(lambda client: _steer(client, name, "drain", as_json))

    @queues.command()
    def purge(name: NameArgument, yes: YesOption = False, as_json: JsonOption = False) -> None:
        """Cancel the waiting jobs of a queue, of all owners; counts them first, and needs --yes."""
        call_server(lambda client: _purge(client, name, yes, as_json))


async def _list(client: Client, as_json: bool) -> bool:
    listed = await client.admin.queues()
    if as_json:
        for queue in listed:
            answer(queue, True, "")
    else:
        make_console().print(queue_table(listed))
    return True


async def _steer(client: Client, name: str, action: QueueAction, as_json: bool) -> bool:
    queue = await client.admin.steer_queue(name, action)
    answer(queue, as_json, f"{queue.name} {queue.state}, {queue.queued} queued, {queue.running} running")
    return True


async def _purge(client: Client, name: str, yes: bool, as_json: bool) -> bool:
    found = await client.admin.purge_queue(name)
    if not yes or not found.matched:
        answer(found, as_json, counted(found.matched, "job", f"cancel in {name}"))
        return True
    done = await client.admin.purge_queue(name, dry_run=False)
    answer(done, as_json, f"{count_of(done.purged, 'job')} cancelled in {name}")
    return True


def queue_table(queues: list[Queue]) -> Table:
    """Make a table of queues: how they stand, then what limits them."""
    table = Table(box=None, pad_edge=False)
    table.add_column("queue", no_wrap=True)
    for name in ("state", "queued", "parked", "running", "limits"):
        table.add_column(name, no_wrap=True, justify="left" if name in ("state", "limits") else "right")
    for queue in queues:
        state = f"{queue.state}, rate limited" if queue.rate_limited_until is not None else queue.state
        table.add_row(
            one_line(queue.name),
            state,
            str(queue.queued),
            str(queue.parked),
            str(queue.running),
            _limits(queue),
        )
    return table


def _limits(queue: Queue) -> str:
    limits = queue.limits
    parts = [
        f"{limits.max_running} at once" if limits.max_running is not None else "",
        limits.rate or "",
        f"{limits.rate_per_owner} an owner" if limits.rate_per_owner else "",
        f"{limits.rate_per_org} an org" if limits.rate_per_org else "",
        f"{limits.max_length:,} long" if limits.max_length is not None else "",
    ]
    return one_line(", ".join(part for part in parts if part))
