"""Commands of the worker and the server: taken from entry points, or told how to install them."""

from __future__ import annotations

import traceback
from importlib.metadata import entry_points

import typer

__all__ = ["GROUP", "explain_missing", "register"]

GROUP = "tidings.commands"
"""Entry points of this group name a function `register(app: typer.Typer) -> None`."""

_EXTRAS = {
    "dev": "dev",
    "server": "server",
    "check": "server",
    "token": "server",
    "openapi": "server",
    "worker": "worker",
}
_OWN = ("tidings", "tidings_tasks", "tidings_server")
EXIT_USAGE = 2


def explain_missing(command: str, error: ModuleNotFoundError) -> str | None:
    """Say which extra brings the module that ``command`` misses.

    None when it is not this installation's to say: the import stands in other code, such as a user's job module.
    """
    extra = _EXTRAS.get(command)
    if extra is None or error.name is None or error.name.partition(".")[0] in _OWN:
        return None
    importers = [
        str(frame.f_globals.get("__name__"))
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith("<frozen importlib")
    ]
    if not importers or importers[-1].partition(".")[0] not in _OWN:
        return None
    return _advise(command, extra, error.name)


def register(app: typer.Typer) -> None:
    """Add every installed floor's commands, and in place of a missing one the name of its extra."""
    missing: list[str] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            add = entry.load()
        except ModuleNotFoundError as error:
            missing.append(str(error.name))
            continue
        add(app)
    present = {_name(command) for command in app.registered_commands} | {
        group.name for group in app.registered_groups
    }
    for name, extra in _EXTRAS.items():
        if name not in present:
            _add_signpost(app, name, extra, missing)


def _add_signpost(app: typer.Typer, name: str, extra: str, missing: list[str]) -> None:
    @app.command(
        name,
        help=f"Not installed: pip install 'tidings[{extra}]'",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def signpost() -> None:
        typer.echo(f"error: {_advise(name, extra, ', '.join(missing))}", err=True)
        raise typer.Exit(EXIT_USAGE)


def _advise(command: str, extra: str, missing: str) -> str:
    why = f" (there is no module {missing})" if missing else ""
    return f"`tidings {command}` needs `pip install 'tidings[{extra}]'`{why}"


def _name(command: typer.models.CommandInfo) -> str:
    function = getattr(command.callback, "__name__", "")
    return command.name or function.replace("_", "-")
