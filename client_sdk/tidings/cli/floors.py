"""Commands of the worker and the server: taken from entry points, or told how to install them."""

from __future__ import annotations

from importlib.metadata import entry_points

import typer

__all__ = ["GROUP", "register"]

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
        why = f" (there is no module {', '.join(missing)})" if missing else ""
        typer.echo(f"error: `tidings {name}` is not installed{why}: pip install 'tidings[{extra}]'", err=True)
        raise typer.Exit(1)


def _name(command: typer.models.CommandInfo) -> str:
    function = getattr(command.callback, "__name__", "")
    return command.name or function.replace("_", "-")
