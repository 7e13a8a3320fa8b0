"""A job on a terminal: a progress bar that moves, and above it what the job says."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import orjson
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ..cursor import Snapshot, WatchItem
from ..protocol.events import Event
from ..protocol.models import Job
from ..protocol.states import EventKind
from ..transport import ConnectionState
from .messages import one_line, printable

__all__ = ["JobDisplay", "make_console", "table_of"]

_PIPE_WIDTH = 200


def make_console() -> Console:
    """A console on standard output; where that is no terminal, wide enough not to cut a table."""
    console = Console(markup=False, highlight=False, emoji=False)
    return (
        console
        if console.is_terminal
        else Console(markup=False, highlight=False, emoji=False, width=_PIPE_WIDTH)
    )


class JobDisplay:
    """Shows one watch from its first item to its last; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[step]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("connecting", total=None, step="")
        self._output = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()
        self._bar.stop()

    def show_connection(self, state: ConnectionState) -> None:
        """Say that the server is out of reach, or back."""
        if state is ConnectionState.OFFLINE:
            self._bar.update(self._task, step="(offline, trying again)")
        else:
            self._bar.update(self._task, step="")

    def show(self, item: WatchItem) -> None:
        """Show an event or a snapshot."""
        if isinstance(item, Snapshot):
            self._show_job(item.job)
        else:
            self._show_event(item)

    def _show_job(self, job: Job) -> None:
        self._bar.update(self._task, description=job.status.value)
        if job.progress is not None:
            self._advance(job.progress.model_dump())

    def _show_event(self, event: Event) -> None:
        data = event.data
        match event.kind:
            case EventKind.PROGRESS:
                self._advance(data)
            case EventKind.OUTPUT:
                self._write(data.get("chunk"))
            case EventKind.LOG:
                fields = " ".join(f"{name}={value}" for name, value in (data.get("fields") or {}).items())
                self._print(one_line(f"{data.get('level', 'info')}: {data.get('message', '')} {fields}"))
            case EventKind.STARTED:
                self._bar.update(self._task, description="running")
            case EventKind.RETRYING:
                self._bar.update(self._task, description="retrying")
                self._print(
                    f"attempt {event.attempt} failed: {_error(data)}; again in {data.get('delay_s', 0):g} s"
                )
            case EventKind.COMPLETED:
                self._bar.update(self._task, description="completed", completed=100, total=100, step="")
                self._flush()
                if data.get("result") is not None:
                    self._print(orjson.dumps(data["result"], option=orjson.OPT_INDENT_2).decode())
            case EventKind.FAILED:
                self._bar.update(self._task, description="failed", step="")
                self._print(f"failed: {_error(data)}")
            case EventKind.CANCELLED:
                self._bar.update(self._task, description="cancelled", step="")
                reason = f": {data['reason']}" if data.get("reason") else ""
                self._print(one_line(f"cancelled by {data.get('by') or 'somebody'}{reason}"))
            case _:
                self._bar.update(self._task, description=event.kind.value)

    def _advance(self, progress: dict[str, Any]) -> None:
        percent = progress.get("percent")
        parts = [progress.get("message"), progress.get("step")]
        if not any(parts) and progress.get("total") is not None:
            parts = [f"{progress.get('current') or 0:g} of {progress['total']:g}"]
        self._bar.update(
            self._task,
            description="running",
            total=None if percent is None else 100,
            completed=percent or 0,
            step=one_line(" ".join(str(part) for part in parts if part)),
        )

    def _write(self, chunk: Any) -> None:
        # A line at a time: what stands above the bar can't be added to.
        self._output += printable(chunk) if isinstance(chunk, str) else orjson.dumps(chunk).decode() + "\n"
        *lines, self._output = self._output.split("\n")
        for line in lines:
            self._console.print(Text(line))

    def _flush(self) -> None:
        if self._output:
            self._console.print(Text(self._output))
            self._output = ""

    def _print(self, line: str) -> None:
        self._flush()
        self._console.print(Text(printable(line)))


def table_of(jobs: list[Job]) -> Table:
    """Make a table of jobs, ids uncut."""
    table = Table(box=None, pad_edge=False)
    table.add_column("id", no_wrap=True)
    for name in ("type", "status", "progress", "queue", "created"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for job in jobs:
        percent = job.progress.percent if job.progress else None
        table.add_row(
            job.id,
            job.type,
            job.status.value,
            "" if percent is None else f"{percent:.0f} %",
            job.queue,
            job.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        )
    return table


def _error(data: dict[str, Any]) -> str:
    error = data.get("error") or {}
    code, kind = error.get("code", "error"), error.get("type")
    # The message of a KeyError is its key: nothing without the type.
    words = (
        [code, kind, error.get("message", "")]
        if code == "exception" and kind
        else [code, error.get("message", "")]
    )
    return one_line(": ".join(map(str, words)))
