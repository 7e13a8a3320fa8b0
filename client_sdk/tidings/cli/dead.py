"""The operator's commands about dead letters: list, groups, show, retry, purge."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..client import Client
from ..protocol.admin import DeadFilter, DeadGroup, DeadJob, DeadLetter
from .calling import JobIdArgument, JsonOption, answer, call_server, check_job_id, to_json
from .display import make_console
from .messages import count_of, counted, one_line, printable
from .options import YesOption

__all__ = ["COMMANDS", "register"]

COMMANDS = frozenset({"dead"})

_MOST_ON_A_PAGE = 200
_LINES_OF_LOG = 20
_THING = "dead letter"

QueueOption = Annotated[str | None, typer.Option(help="Only those of this queue.")]
TypeOption = Annotated[str | None, typer.Option(help="Only those of this type.")]
FingerprintOption = Annotated[str | None, typer.Option(help="Only those with such an error.")]
LimitOption = Annotated[int, typer.Option(min=1, help="How many at most.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every dead letter.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    dead = typer.Typer(
        help="Jobs that failed for good: look at them, try them again, delete them (scope admin)."
    )
    app.add_typer(dead, name="dead")

    @dead.callback(invoke_without_command=True)
    def list_by_default(context: typer.Context, as_json: JsonOption = False) -> None:
        """Jobs that failed for good: look at them, try them again, delete them (scope admin)."""
        if context.invoked_subcommand is None:
            call_server(lambda client: _list(client, DeadFilter(), 20, as_json))

    @dead.command("list")
    def list_dead(
        queue: QueueOption = None,
        type: TypeOption = None,
        fingerprint: FingerprintOption = None,
        limit: LimitOption = 20,
        as_json: JsonOption = False,
    ) -> None:
        """List dead letters, the latest first; with --json one a line, with its traceback."""
        wanted = DeadFilter(queue=queue, type=type, fingerprint=fingerprint)
        call_server(lambda client: _list(client, wanted, limit, as_json))

    @dead.command()
    def groups(as_json: JsonOption = False) -> None:
        """List what went wrong, the most frequent first: one line for errors that look the same."""
        call_server(lambda client: _groups(client, as_json))

    @dead.command()
    def show(id: JobIdArgument, as_json: JsonOption = False) -> None:
        """Show one dead letter with its traceback and the end of its log."""
        call_server(lambda client: _show(client, id, as_json))

    @dead.command()
    def retry(
        id: Annotated[str | None, typer.Argument(metavar="ID", help="One; or give a filter.")] = None,
        queue: QueueOption = None,
        type: TypeOption = None,
        fingerprint: FingerprintOption = None,
        all_dead: AllOption = False,
        yes: YesOption = False,
        as_json: JsonOption = False,
    ) -> None:
        """Submit one again, or all that a filter lets through: counts them first, and needs --yes."""
        if id is not None:
            if all_dead or not queue is type is fingerprint is None:
                raise typer.BadParameter("give an id or a filter, not both", param_hint="ID")
            job_id = check_job_id(id)
            call_server(lambda client: _retry_one(client, job_id, as_json))
            return
        wanted = _filter(queue, type, fingerprint, all_dead)
        call_server(lambda client: _retry(client, wanted, yes, as_json))

    @dead.command()
    def purge(
        queue: QueueOption = None,
        type: TypeOption = None,
        fingerprint: FingerprintOption = None,
        all_dead: AllOption = False,
        yes: YesOption = False,
        as_json: JsonOption = False,
    ) -> None:
        """Delete what a filter lets through: counts them first, and needs --yes."""
        wanted = _filter(queue, type, fingerprint, all_dead)
        call_server(lambda client: _purge(client, wanted, yes, as_json))


def _filter(queue: str | None, type: str | None, fingerprint: str | None, all_dead: bool) -> DeadFilter:
    is_filtering = not queue is type is fingerprint is None
    if is_filtering == all_dead:
        raise typer.BadParameter(
            "give a filter, or --all for every dead letter",
            param_hint="--queue, --type, --fingerprint, --all",
        )
    return DeadFilter(queue=queue, type=type, fingerprint=fingerprint, all=all_dead)


async def _list(client: Client, wanted: DeadFilter, limit: int, as_json: bool) -> bool:
    found: list[DeadJob] = []
    cursor: str | None = None
    while len(found) < limit:
        page = await client.admin.dead(
            queue=wanted.queue,
            type=wanted.type,
            fingerprint=wanted.fingerprint,
            limit=min(limit - len(found), _MOST_ON_A_PAGE),
            cursor=cursor,
        )
        found += page.jobs
        cursor = page.next_cursor
        if cursor is None:
            break
    if as_json:
        for job in found:
            answer(job, True, "")
    elif found:
        make_console().print(_job_table(found))
    else:
        typer.echo("no dead letters")
    return True


async def _groups(client: Client, as_json: bool) -> bool:
    found = await client.admin.dead_groups()
    if as_json:
        for group in found:
            answer(group, True, "")
    elif found:
        make_console().print(_group_table(found))
    else:
        typer.echo("no dead letters")
    return True


async def _show(client: Client, job_id: str, as_json: bool) -> bool:
    letter = await client.admin.dead_letter(job_id)
    if as_json:
        answer(letter, True, "")
    else:
        make_console().print(_letter_view(letter))
    return True


async def _retry_one(client: Client, job_id: str, as_json: bool) -> bool:
    job = await client.admin.retry_dead(job_id)
    answer(job, as_json, f"{job.id} {job.status}")
    return True


async def _retry(client: Client, wanted: DeadFilter, yes: bool, as_json: bool) -> bool:
    found = await client.admin.retry_dead_letters(wanted)
    if not yes or not found.matched:
        answer(found, as_json, counted(found.matched, _THING, "submit again"))
        return True
    done = await client.admin.retry_dead_letters(wanted.model_copy(update={"dry_run": False}))
    refused = f", {done.refused} refused: their queue takes none now" if done.refused else ""
    answer(done, as_json, f"{count_of(done.retried, _THING)} submitted again{refused}")
    return not done.refused


async def _purge(client: Client, wanted: DeadFilter, yes: bool, as_json: bool) -> bool:
    found = await client.admin.purge_dead_letters(wanted)
    if not yes or not found.matched:
        answer(found, as_json, counted(found.matched, _THING, "delete"))
        return True
    done = await client.admin.purge_dead_letters(wanted.model_copy(update={"dry_run": False}))
    answer(done, as_json, f"{count_of(done.purged, _THING)} deleted")
    return True


def _job_table(jobs: list[DeadJob]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("id", no_wrap=True)
    for name in ("type", "queue", "owner", "failed", "fingerprint", "error"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for job in jobs:
        table.add_row(
            job.id,
            job.type,
            job.queue,
            one_line(job.owner),
            "" if job.finished_at is None else job.finished_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            job.fingerprint or "",
            _error(job),
        )
    return table


def _group_table(groups: list[DeadGroup]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("count", justify="right")
    for name in ("queue", "type", "last", "fingerprint", "error"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for group in groups:
        table.add_row(
            str(group.count),
            group.queue,
            group.type,
            group.last_seen.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            group.fingerprint,
            one_line(f"{group.code}: {group.error_type}: {group.message}"),
        )
    return table


def _letter_view(letter: DeadLetter) -> Group:
    job = letter.job
    lines = [
        Text(one_line(f"{job.id} {job.type} of {job.owner}{f' ({job.org})' if job.org else ''}")),
        Text(one_line(f"queue {job.queue}, {job.tries} tries, fingerprint {job.fingerprint}")),
        Text(_error(job)),
        Text(printable(job.stack or "no traceback was kept")),
        Text("input: " + printable(to_json(job.input, indented=True).decode())),
    ]
    for event in letter.events[-_LINES_OF_LOG:]:
        at = event.at.astimezone().strftime("%H:%M:%S")
        lines.append(Text(one_line(f"{at} {event.kind.value} {to_json(event.data).decode()[:200]}")))
    return Group(*lines)


def _error(job: DeadJob) -> str:
    return "" if job.error is None else one_line(f"{job.error.code}: {job.error.type}: {job.error.message}")
