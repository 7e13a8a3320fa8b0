"""The operator's live view: workers with what they run, and queues with what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..client import Client
from ..protocol.admin import Dependency, Queue, Worker
from ..protocol.errors import TidingsError
from .calling import JsonOption, call_server, to_json
from .display import make_console
from .messages import count_of, describe, one_line
from .queues import queue_table

__all__ = ["COMMANDS", "circuit_of", "register"]

COMMANDS = frozenset({"top"})

_JOBS_SHOWN = 3
_TIMEOUT_S = 10.0
_WIDE_FROM = 110
_WIDE = ("host", "profile", "up")
_NARROW = ("pid", "running", "memory", "done", "failed", "version", "jobs")
_NUMBERS = frozenset({"up", "pid", "running", "memory", "done", "failed"})


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def top(
        once: Annotated[bool, typer.Option("--once", help="Show it once, as it is now.")] = False,
        interval: Annotated[
            float, typer.Option(min=0.2, max=3600, metavar="SECONDS", help="How often it is read anew.")
        ] = 1.0,
        as_json: JsonOption = False,
    ) -> None:
        """Show workers and queues live, until Ctrl-C (scope admin); with --json once, as one object."""
        try:
            call_server(lambda client: _top(client, once, interval, as_json))
        except KeyboardInterrupt:
            return


async def _top(client: Client, once: bool, interval_s: float, as_json: bool) -> bool:
    console = make_console()
    workers, queues, dependencies = await _read(client)
    if as_json:
        found: dict[str, Sequence[BaseModel]] = {
            "workers": workers,
            "queues": queues,
            "dependencies": dependencies,
        }
        typer.echo(to_json({name: [each.model_dump() for each in listed] for name, listed in found.items()}))
        return True
    shown = _view(console.width, workers, queues, dependencies)
    if once or not console.is_terminal:
        console.print(shown)
        return True
    with Live(shown, console=console, auto_refresh=False, screen=True) as live:
        while True:
            await asyncio.sleep(interval_s)
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    shown = _view(console.width, *await _read(client))
                live.update(shown, refresh=True)
            except TimeoutError:
                live.update(Group(Text("no answer; trying again"), shown), refresh=True)
            except TidingsError as error:
                if not error.temporary:
                    raise
                live.update(Group(Text(describe(error)), shown), refresh=True)


async def _read(client: Client) -> tuple[list[Worker], list[Queue], list[Dependency]]:
    return await asyncio.gather(client.admin.workers(), client.admin.queues(), client.admin.dependencies())


def _view(
    width: int, workers: Sequence[Worker], queues: Sequence[Queue], dependencies: Sequence[Dependency]
) -> Group:
    now = datetime.now(UTC)
    slots = sum(worker.concurrency for worker in workers)
    running, waiting = sum(queue.running for queue in queues), sum(queue.queued for queue in queues)
    head = f"{now.astimezone():%H:%M:%S}  {count_of(len(workers), 'worker')}, {count_of(slots, 'slot')}; {count_of(running, 'job')} running, {waiting:,} queued"
    parts: list[Text | Table] = [Text(head), Text(), _worker_table(width, workers, now), Text()]
    # What stands still is of little interest, but a pause is.
    order = sorted(queues, key=lambda queue: (not (queue.queued or queue.running), queue.name))
    parts.append(queue_table(order))
    parts += [Text(one_line(f"dependency {each.name}: {circuit_of(each, now)}")) for each in dependencies]
    return Group(*parts)


def _worker_table(width: int, workers: Sequence[Worker], now: datetime) -> Table:
    names = ["worker", *_WIDE, *_NARROW] if width >= _WIDE_FROM else ["worker", *_NARROW]
    table = Table(box=None, pad_edge=False)
    for name in names:
        # Only the jobs may take several lines, so that no number is cut.
        table.add_column(
            name, no_wrap=name != "jobs", overflow="fold", justify="right" if name in _NUMBERS else "left"
        )
    for worker in workers:
        cells = _cells(worker, now)
        table.add_row(*(cells[name] for name in names))
    return table


def _cells(worker: Worker, now: datetime) -> dict[str, str]:
    return {
        "worker": one_line(worker.id) + (" (stopping)" if worker.is_stopping else ""),
        "host": one_line(worker.host),
        "profile": one_line(worker.profile),
        "up": _span((now - worker.started_at).total_seconds()),
        "pid": str(worker.pid),
        # Under the stock dramatiq command no number is told.
        "running": f"{worker.running_count}/{worker.concurrency}"
        if worker.concurrency
        else str(worker.running_count),
        "memory": f"{worker.rss_bytes / 1_048_576:.0f} MiB",
        "done": str(worker.done),
        "failed": str(worker.failed),
        "version": one_line(worker.version),
        "jobs": _jobs(worker, now),
    }


def circuit_of(each: Dependency, now: datetime) -> str:
    """Say what the circuit of a dependency does to its jobs."""
    if each.state == "closed":
        return f"closed, {count_of(each.failures, 'failure')} lately"
    if each.state == "open" and each.open_until is not None and each.open_until > now:
        return f"open until {each.open_until.astimezone():%H:%M:%S}: its jobs wait"
    return "open: the next job is a trial" if each.state == "open" else "half open: a job tries it"


def _jobs(worker: Worker, now: datetime) -> str:
    shown = [f"{job.type} {_span((now - job.since).total_seconds())}" for job in worker.running[:_JOBS_SHOWN]]
    more = worker.running_count - len(shown)
    return one_line(", ".join([*shown, f"{more} more"] if more > 0 else shown))


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"
