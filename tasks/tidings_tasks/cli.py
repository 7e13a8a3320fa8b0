"""The commands of this floor: ``tidings worker`` and ``tidings check``.

What a command needs is imported when it runs, so that ``tidings --help`` is not slowed by it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["DataOption", "ReadyOption", "exit_on_faults", "load_command_settings", "register"]

EXIT_FAILED = 1
EXIT_USAGE = 2

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "error": ("ERROR", "red")}

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Where data is kept. [default: TIDINGS_DATA_DIR or .tidings]"),
]
ReadyOption = Annotated[
    int | None,
    typer.Option("--ready-fd", hidden=True, help="Write a newline to this descriptor when ready."),
]
ModulesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODULE]...", help="Modules that register job types, besides TIDINGS_JOBS."),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this floor."""
    app.command()(worker)
    app.command()(check)


@contextmanager
def exit_on_faults() -> Iterator[None]:
    """Turn what a restart cannot mend, in the settings or the embedded store, into a message and exit status 2."""
    from .embedded import EmbeddedStoreError
    from .settings import SettingsError

    try:
        yield
    except (SettingsError, EmbeddedStoreError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_USAGE) from None


def load_command_settings(modules: list[str] | None = None, **options: Any) -> Settings:
    """Load the settings of a command, with its modules behind those of ``TIDINGS_JOBS``, and configure logging.

    Raises:
        SettingsError: they are not valid.
    """
    from .logs import configure_logging
    from .settings import load_settings

    settings = load_settings(**options)
    if modules:
        settings = load_settings(**options, jobs=tuple(dict.fromkeys([*settings.jobs, *modules])))
    configure_logging(settings.log_level, settings.log_format, secrets=settings.secrets)
    return settings


def worker(
    modules: ModulesArgument = None,
    queues: Annotated[
        str | None, typer.Option(metavar="A,B", help="Serve these queues alone. [default: all known ones]")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Serve the queues of this profile: primary, document, ai, scheduled, all, or one of the settings.",
        ),
    ] = None,
    data: DataOption = None,
    ready_fd: ReadyOption = None,
) -> None:
    """Run jobs until SIGTERM or Ctrl-C; then hand back what is still running."""
    from .job_modules import import_job_modules
    from .process import notify_ready, run_until_stopped
    from .queue.broker import installed_broker
    from .settings import WORKER_BARE_NAMES, SettingsError
    from .store_source import open_store

    if queues is not None and profile is not None:
        raise typer.BadParameter(
            "it goes without --profile, which names queues too; give one of them", param_hint="--queues"
        )
    with exit_on_faults():
        # Queues that are named one by one are no profile's, whatever the environment says.
        profile = "all" if queues is not None else profile
        settings = load_command_settings(
            modules, bare_names=WORKER_BARE_NAMES, data_dir=data, worker_profile=profile
        )
        registry = import_job_modules(settings.jobs)
        broker = installed_broker()
        if not len(registry) and not broker.get_declared_actors():
            raise SettingsError(
                "no job types are registered: name the modules that do, as arguments or in TIDINGS_JOBS=myapp.jobs"
            )
        chosen = settings.profile.queues if queues is None else _split(queues)
        known = {*settings.queues, *registry.queues, *broker.get_declared_queues()}
        if unknown := sorted(set(chosen or ()) - known):
            message = f"there is no queue {', '.join(unknown)}; known are {', '.join(sorted(known))}"
            if queues is None:
                raise SettingsError(f"profile {settings.profile.name}: {message}")
            raise typer.BadParameter(message, param_hint="--queues")
        from .worker import run_worker

        hurry = asyncio.Event()
        with open_store(settings) as store:

            async def main(stop: asyncio.Event) -> None:
                await run_worker(
                    settings,
                    store_url=store.url,
                    queues=chosen,
                    registry=registry,
                    stop=stop,
                    hurry=hurry,
                    ready=lambda: notify_ready(ready_fd),
                )

            run_until_stopped(main, hurry=hurry)


def check(
    modules: ModulesArgument = None,
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Try what the settings name, say how to mend each fault, and exit with 1 when there is one."""
    from .checking import check_all, explain_settings
    from .settings import SettingsError

    try:
        settings = load_command_settings(modules, data_dir=data)
        findings = asyncio.run(check_all(settings))
    except SettingsError as error:
        findings = explain_settings(error)
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings]))
    else:
        for finding in findings:
            mark, colour = _MARKS[finding.status]
            typer.secho(f"{mark:>7}  ", fg=colour, nl=False)
            typer.echo(f"{finding.subject}: {finding.message}")
            if finding.fix:
                typer.echo(f"         fix: {finding.fix}")
    if any(finding.status == "error" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
