"""The `tidings` command: the client's commands, and those of the worker and the server where they are installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from .. import __version__
from ..protocol.errors import TidingsError
from . import cancelling, dead, floors, jobs, outcomes, queues, schedules, submitting, top
from .messages import describe, one_line

__all__ = ["CLIENT_COMMANDS", "main"]

_CLIENT = (submitting, jobs, cancelling, outcomes, queues, schedules, dead, top)
CLIENT_COMMANDS = frozenset(name for group in _CLIENT for name in group.COMMANDS)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted.

    Args:
        argv: The arguments behind the program's name; the process's own when left out.
    """
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    command = _command_in(arguments)
    try:
        answer = typer.main.get_command(_app(command)).main(
            arguments, prog_name="tidings", standalone_mode=False
        )
        return answer if isinstance(answer, int) else 0
    except BrokenPipeError:
        # The reader has gone, as `head` does; what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except ModuleNotFoundError as error:
        advice = floors.explain_missing(command, error)
        if advice is None:
            raise
        return _say(advice, EXIT_USAGE)
    except TidingsError as error:
        return _say(describe(error), EXIT_FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except OSError as error:
        return _say(f"{error.filename or 'input/output'}: {error.strerror or error}", EXIT_FAILED)
    except _USAGE_ERROR as error:
        return _say(f"{_message(error)} (see: {_help_of(error)})", getattr(error, "exit_code", EXIT_USAGE))


# Typer brings its own copy of click since 0.2x and exports only this one of its errors.
_USAGE_ERROR: type[Exception] = next(
    kind
    for kind in typer.BadParameter.__mro__
    if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)


def _app(command: str) -> typer.Typer:
    app = typer.Typer(
        help="Run background jobs and follow them live.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", is_eager=True, callback=_show_version, help="Show the version."
        ),
    ) -> None:
        """Run background jobs and follow them live."""

    for group in _CLIENT:
        group.register(app)
    # A client command must not wait for a server's imports.
    if command not in CLIENT_COMMANDS:
        floors.register(app)
    return app


def _command_in(arguments: Sequence[str]) -> str:
    return next((word for word in arguments if not word.startswith("-")), "")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tidings {__version__}")
        raise typer.Exit


def _message(error: Any) -> str:
    # Typer hands on the message of a value it cannot convert as pydantic words it.
    return one_line(error.format_message()).replace("Value error, ", "")


def _help_of(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else 'tidings'} --help"


def _say(message: str, status: int) -> int:
    typer.echo(f"error: {message}", err=True)
    return status
