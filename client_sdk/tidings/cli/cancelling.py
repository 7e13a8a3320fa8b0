"""The command that cancels: one job by its id, or one's own by filter, counted first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from pydantic import ValidationError

from ..client import Client
from ..protocol.bulk import CancelJobs
from ..protocol.models import Job
from ..protocol.states import JobState
from .calling import JsonOption, answer, call_server, check_job_id
from .messages import count_of, counted
from .options import YesOption, read_time

__all__ = ["COMMANDS", "register"]


def cancel(
    id: Annotated[str | None, typer.Argument(metavar="ID", help="The job's id; or give a filter.")] = None,
    status: Annotated[
        list[JobState] | None,
        typer.Option(help="Your open jobs in this state; may be repeated, as the others."),
    ] = None,
    type: Annotated[list[str] | None, typer.Option(help="Your open jobs of this type.")] = None,
    queue: Annotated[list[str] | None, typer.Option(help="Your open jobs of this queue.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Your open jobs with this tag.")] = None,
    created_after: Annotated[str | None, typer.Option(metavar="TIME", help="Only younger ones.")] = None,
    created_before: Annotated[str | None, typer.Option(metavar="TIME", help="Only older ones.")] = None,
    all_jobs: Annotated[bool, typer.Option("--all", help="Every open job of yours.")] = False,
    yes: YesOption = False,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept with the job.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a job: at once when it has not begun, else when it next looks. Or all that a filter lets through."""
    wanted = CancelJobs.model_construct(
        status=status or [],
        type=type or [],
        queue=queue or [],
        tag=tag or [],
        created_after=read_time(created_after, "--created-after"),
        created_before=read_time(created_before, "--created-before"),
        all=all_jobs,
        reason=reason,
    )
    if id is not None:
        if wanted.is_filtering or all_jobs:
            raise typer.BadParameter("give an id or a filter, not both", param_hint="ID")
        job_id = check_job_id(id)
        call_server(lambda client: _cancel_one(client, job_id, reason, as_json))
        return
    try:
        checked = CancelJobs.model_validate(wanted.model_dump())
    except ValidationError as error:
        reason_why = error.errors()[0]["msg"].removeprefix("Value error, ").replace("all: true", "--all")
        hint = "--status" if "has ended" in reason_why else "ID or a filter"
        raise typer.BadParameter(reason_why, param_hint=hint) from error
    call_server(lambda client: _cancel_many(client, checked, yes, as_json))


async def _cancel_one(client: Client, job_id: str, reason: str | None, as_json: bool) -> bool:
    job = await client.cancel(job_id, reason=reason)
    answer(job, as_json, f"{job.id} {_word(job)}")
    return True


async def _cancel_many(client: Client, wanted: CancelJobs, yes: bool, as_json: bool) -> bool:
    found = await client.cancel_jobs(wanted.model_copy(update={"dry_run": True}))
    if not yes or not found.matched:
        answer(found, as_json, counted(found.matched, "job", "cancel"))
        return True
    done = await client.cancel_jobs(wanted)
    answer(done, as_json, f"{count_of(done.cancelled, 'job')} cancelled, {done.cancelling} cancelling")
    return True


def _word(job: Job) -> str:
    return "cancelling" if job.status is JobState.RUNNING else job.status.value


_COMMANDS: tuple[Callable[..., None], ...] = (cancel,)
COMMANDS = frozenset(command.__name__ for command in _COMMANDS)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in _COMMANDS:
        app.command()(command)
