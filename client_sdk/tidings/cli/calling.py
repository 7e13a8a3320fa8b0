"""What all the client's commands share: the client that the environment names, their common options, and JSON answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer
from pydantic import BaseModel

from ..client import Client
from ..protocol.ids import is_job_id
from .messages import TOKEN_SOURCE

__all__ = ["JobIdArgument", "JsonOption", "answer", "call_server", "check_job_id", "to_json"]

DEFAULT_URL = "http://127.0.0.1:8000"
EXIT_NOT_COMPLETED = 1


def check_job_id(text: str) -> str:
    """Return the text if it has the form of an id. Raises `typer.BadParameter`."""
    if not is_job_id(text):
        raise typer.BadParameter(
            f"{text[:80]!r} is not a job id, which looks like 01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0"
        )
    return text


JobIdArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id.", callback=check_job_id)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def call_server(work: Callable[[Client], Coroutine[Any, Any, bool]]) -> None:
    """Do the work with the client that the environment names; false ends in status 1."""
    url = os.environ.get("TIDINGS_URL") or DEFAULT_URL
    token = os.environ.get("TIDINGS_TOKEN")
    if not token:
        raise typer.BadParameter(
            f"it is not set; set it to a token: {TOKEN_SOURCE}", param_hint="TIDINGS_TOKEN"
        )
    try:
        client = Client(url, token)
    except ValueError as error:
        name = "TIDINGS_TOKEN" if "token" in str(error) else "TIDINGS_URL"
        raise typer.BadParameter(str(error), param_hint=name) from error

    async def whole() -> bool:
        async with client:
            return await work(client)

    if not asyncio.run(whole()):
        raise typer.Exit(EXIT_NOT_COMPLETED)


def answer(content: BaseModel, as_json: bool, line: str) -> None:
    """Print an answer: whole for programs, as one line for people."""
    typer.echo(to_json(content.model_dump()) if as_json else line)


def to_json(content: Any, *, indented: bool = False) -> bytes:
    """Write JSON as the server does, times with their milliseconds and ``Z``."""
    option = orjson.OPT_PASSTHROUGH_DATETIME | (orjson.OPT_INDENT_2 if indented else 0)
    return orjson.dumps(content, default=_time_text, option=option)


def _time_text(value: Any) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} is not JSON")
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
