"""The commands of this floor: ``tidings dev``, ``server``, ``token`` and ``openapi``.

What a command needs is imported when it runs, so that ``tidings --help`` is not slowed by it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from tidings_tasks.cli import DataOption, ReadyOption, exit_on_faults, load_command_settings

__all__ = ["register"]

EXIT_FAILED = 1

# `tidings_tasks.demo` is for trying things out; a server or worker of its own never loads it unasked.
DEV_MODULES = ("tidings_tasks.demo", "tidings_tasks.jobs.report")

HostOption = Annotated[
    str | None, typer.Option(help="The address to listen on. [default: TIDINGS_HOST or 127.0.0.1]")
]
PortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65_535, help="The port; 0 takes a free one. [default: PORT or 8000]"),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this floor."""
    app.command()(dev)
    app.command()(server)
    app.command()(token)
    app.command()(openapi)


def dev(
    modules: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE]...",
            help="Modules that register job types, such as myapp.jobs; reloaded on change.",
        ),
    ] = None,
    host: HostOption = None,
    port: PortOption = None,
    data: DataOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Announce events on standard output as JSON lines, for programs.")
    ] = False,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="End when the process that started this one ends.")
    ] = False,
) -> None:
    """Run everything in one terminal, and print the URL of a page with a ready token.

    Without REDIS_URL the store is embedded. Ctrl-C or SIGTERM ends everything; data stays in the data directory.
    """
    from tidings_tasks.environment import read_environment
    from tidings_tasks.process import end_with_parent, end_with_terminal, run_until_stopped
    from tidings_tasks.settings import SettingsError, load_settings

    if with_parent:
        end_with_parent()
    with exit_on_faults():
        environ = {"TIDINGS_ENV": "development", "TIDINGS_LOG_FORMAT": "text"} | {
            name: value for name, value in read_environment(dotenv=Path(".env")).items() if value
        }
        named = load_settings(environ, dotenv=None, host=host, port=port, data_dir=data)
        own = tuple(dict.fromkeys([*named.jobs, *(modules or ())]))
        settings = load_settings(
            environ, dotenv=None, host=host, port=port, data_dir=data, jobs=(*DEV_MODULES, *own)
        )
        if settings.env == "production":
            raise SettingsError(
                "TIDINGS_ENV is production, and `tidings dev` is for development: unset it, or run "
                "`tidings server` and `tidings worker`"
            )
        # aiohttp and watchfiles are not needed to refuse.
        from .dev import ChildFailed, DevStack

        end_with_terminal()
        stack = DevStack(settings, modules=own, as_json=as_json)
        try:
            run_until_stopped(stack.run)
        except ChildFailed as error:
            typer.echo(f"error: {error}; its reason is above", err=True)
            raise typer.Exit(error.status if error.status > 0 else EXIT_FAILED) from None


def server(
    host: HostOption = None, port: PortOption = None, data: DataOption = None, ready_fd: ReadyOption = None
) -> None:
    """Serve the API, the live connections and the page until SIGTERM or Ctrl-C."""
    from tidings.protocol.errors import FieldError
    from tidings_tasks.job_modules import import_job_modules
    from tidings_tasks.process import notify_ready, run_until_stopped, settle_heap
    from tidings_tasks.settings import SettingsError
    from tidings_tasks.store_source import open_store

    from .listening import find_port
    from .minting import read_kept_secret

    with exit_on_faults():
        settings = load_command_settings(host=host, port=port, data_dir=data)
        if settings.jwt_secret is None and settings.env != "production":
            kept = read_kept_secret(settings.data_dir)
            settings = load_command_settings(host=host, port=port, data_dir=data, jwt_secret=kept)
        if settings.jwt_secret is None:
            message = (
                "not set, and the server cannot tell whose a request is without it; make one with: "
                'python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
            problem = FieldError(field="JWT_SECRET", code="missing", message=message)
            raise SettingsError("the settings are not valid:", errors=[problem])
        registry = import_job_modules(settings.jobs)
        # Found out before the store is opened, and told with its fix.
        find_port(settings.host, settings.port)
        from .app import run_server

        def ready(host: str, port: int) -> None:
            settle_heap()
            notify_ready(ready_fd)

        with open_store(settings) as store:

            async def main(stop: asyncio.Event) -> None:
                await run_server(
                    settings, store_url=store.url, mode=store.mode, registry=registry, stop=stop, ready=ready
                )

            run_until_stopped(main)


def token(
    sub: Annotated[str, typer.Option("--sub", metavar="NAME", help="Whose the token is.")],
    org: Annotated[str | None, typer.Option(help="The organisation that NAME acts in.")] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What else it allows: org:read or admin; may be given more than once."),
    ] = None,
    ttl: Annotated[str, typer.Option(metavar="TIME", help="How long it is good: 90s, 15m, 1h, 7d.")] = "1h",
    data: DataOption = None,
) -> None:
    """Print a token, signed with JWT_SECRET or with the secret that `tidings dev` keeps in the data directory."""
    from tidings.protocol.errors import FieldError
    from tidings_tasks.settings import SettingsError

    from .minting import mint_token, parse_ttl, read_kept_secret

    with exit_on_faults():
        settings = load_command_settings(data_dir=data)
        configured = settings.jwt_secret.get_secret_value() if settings.jwt_secret else None
        secret = configured or read_kept_secret(settings.data_dir)
        if secret is None:
            message = (
                f"not set, and {settings.data_dir.absolute()} has no secret of `tidings dev`; set it to the server's, "
                "or name the data directory with --data DIR"
            )
            problem = FieldError(field="JWT_SECRET", code="missing", message=message)
            raise SettingsError("a token cannot be signed:", errors=[problem])
        try:
            ttl_s = parse_ttl(ttl)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--ttl") from None
        scopes = [word for text in scope or () for word in text.split()]
        typer.echo(mint_token(settings, secret, sub=sub, org=org, scopes=scopes, ttl_s=ttl_s))


def openapi() -> None:
    """Print the OpenAPI 3.1 document of the REST API."""
    from .api.routes import describe

    json.dump(describe(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
