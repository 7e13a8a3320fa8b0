"""The client's commands about what is left of a job, and about what can be run: result, delete, types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ..client import Client
from ..protocol.errors import IllegalState
from .calling import JobIdArgument, JsonOption, answer, call_server, to_json
from .display import make_console
from .messages import one_line, printable

__all__ = ["COMMANDS", "register"]


def result(
    id: JobIdArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it, or its file, to FILE.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Write the result's file under its own name, here.")
    ] = False,
) -> None:
    """Print a completed job's result as JSON, or write it or the file it names."""
    if output is not None and download:
        raise typer.BadParameter("give one of them, not both", param_hint="--output, --download")

    async def work(client: Client) -> bool:
        job = await client.get(id)
        if not job.status.is_terminal:
            raise IllegalState(f"the job is {job.status}; `tidings watch {id}` follows it to its end")
        found = await client.result(id)
        if output is None and not download:
            typer.echo(to_json(found, indented=True))
            return True
        file = _file_in(found)
        if file is not None:
            path = await client.download_to(file[0], output or _own_name(file[1]))
        elif output is not None:
            path = output
            path.write_bytes(to_json(found, indented=True) + b"\n")
        else:
            raise typer.BadParameter(
                "the result names no file; --output FILE writes it as JSON", param_hint="--download"
            )
        typer.echo(printable(str(path)))
        return True

    call_server(work)


def delete(id: JobIdArgument) -> None:
    """Remove an ended job with its log, its result and its result's file."""

    async def work(client: Client) -> bool:
        await client.delete(id)
        typer.echo(f"{id} deleted")
        return True

    call_server(work)


def types(as_json: JsonOption = False) -> None:
    """List the job types that can be submitted; with --json one a line, with the schema of its input."""

    async def work(client: Client) -> bool:
        listed = await client.job_types()
        table = Table(box=None, pad_edge=False)
        table.add_column("type", no_wrap=True)
        for name in ("queue", "timeout", "description"):
            table.add_column(name, overflow="ellipsis", no_wrap=True)
        for entry in listed:
            table.add_row(entry.type, entry.queue, f"{entry.timeout_s:g} s", one_line(entry.description))
            if as_json:
                answer(entry, True, "")
        if not as_json:
            make_console().print(table)
        return True

    call_server(work)


_COMMANDS: tuple[Callable[..., None], ...] = (result, delete, types)
COMMANDS = frozenset(command.__name__ for command in _COMMANDS)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in _COMMANDS:
        app.command()(command)


def _file_in(found: Any) -> tuple[str, str] | None:
    """The id and the name of the file that a result names. What a job returned is not trusted."""
    file = found.get("file") if isinstance(found, dict) else None
    if not isinstance(file, dict) or not isinstance(file.get("id"), str):
        return None
    return file["id"], str(file.get("name") or "")


def _own_name(name: str) -> Path:
    # A job names its file; it must neither leave this directory nor replace or hide anything in it.
    path = Path(printable(Path(name).name).lstrip(".") or "result.bin")
    if path.exists():
        raise typer.BadParameter(f"{path} exists; give another name with --output", param_hint="--download")
    return path
