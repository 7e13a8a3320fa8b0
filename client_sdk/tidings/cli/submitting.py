"""The commands that put jobs in: submit, one or a file of them, and change what waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..client import Client
from .calling import JobIdArgument, JsonOption, answer, call_server
from .following import follow
from .inputs import read_batch, read_input, read_object
from .options import DelayOption, PriorityOption, RunAtOption, check_one, read_time

__all__ = ["COMMANDS", "register"]


def submit(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="The job type, such as report.render.")],
    input: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="JSON|@FILE",
            help="The job's input: a JSON object, or @file.json. For report.render also @file.csv and @file.md;"
            " of several --input the sections are put one behind the other.",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="@FILE", help="A job for each line, which is its input as JSON; all or none."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the job to its end.")] = False,
    queue: Annotated[str | None, typer.Option(help="Instead of the type's own queue.")] = None,
    priority: PriorityOption = None,
    delay: DelayOption = None,
    run_at: RunAtOption = None,
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="If it has not begun by then, it fails (ISO 8601).")
    ] = None,
    expires_in: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help="If it has not begun by then, it fails."),
    ] = None,
    concurrency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Of your jobs with this key only so many run at once, usually one."),
    ] = None,
    dedup_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="While your job with this key is open, it is answered instead."),
    ] = None,
    dedup_ttl: Annotated[
        float | None, typer.Option(min=0.001, metavar="SECONDS", help="How long --dedup-key holds instead.")
    ] = None,
    debounce: Annotated[
        bool, typer.Option("--debounce", help="With --dedup-key: a repeat replaces input and due time.")
    ] = False,
    tag: Annotated[list[str] | None, typer.Option(help="A tag to find the job by; may be repeated.")] = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="Kept with the job.")] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The same key and input make one job only, for 24 hours."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job, or with --batch one for each line of a file."""
    about = {} if metadata is None else read_object(metadata, "--metadata")
    due, last = read_time(run_at, "--run-at"), read_time(expires, "--expires")
    check_one("--delay", "--run-at", given=(due is not None) + (delay is not None))
    check_one("--expires", "--expires-in", given=(last is not None) + (expires_in is not None))
    check_one("--input", "--batch", given=bool(input) + (batch is not None))
    check_one("--watch", "--batch", given=watch + (batch is not None))
    if dedup_key is None and (debounce or dedup_ttl is not None):
        raise typer.BadParameter("--debounce and --dedup-ttl need it", param_hint="--dedup-key")
    options: dict[str, Any] = {
        "queue": queue, "priority": priority, "delay_s": delay, "run_at": due, "expires_at": last,
        "expires_in_s": expires_in, "concurrency_key": concurrency_key, "tags": tag or [], "metadata": about,
    }  # fmt: skip
    if batch is not None:
        if dedup_key is not None:
            raise typer.BadParameter("it would make one job of the batch", param_hint="--dedup-key, --batch")
        jobs = [{"type": type, "input": each, **options} for each in read_batch(batch)]
        call_server(lambda client: _submit_batch(client, jobs, idempotency_key, as_json))
        return
    content = read_input(input or [])

    async def work(client: Client) -> bool:
        job = await client.submit(
            type,
            content,
            dedup_key=dedup_key,
            dedup_ttl_s=dedup_ttl,
            debounce=debounce,
            idempotency_key=idempotency_key,
            **options,
        )
        if not (as_json and watch):
            answer(job, as_json, f"{job.id} {job.status}")
        return not watch or await follow(client, job.id, "0", as_json)

    call_server(work)


async def _submit_batch(
    client: Client, jobs: list[dict[str, Any]], idempotency_key: str | None, as_json: bool
) -> bool:
    for job in await client.submit_many(jobs, idempotency_key=idempotency_key):
        answer(job, as_json, f"{job.id} {job.status}")
    return True


def change(
    id: JobIdArgument,
    priority: PriorityOption = None,
    delay: DelayOption = None,
    run_at: RunAtOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a waiting job's priority, or when it runs; --delay 0 lets it run at once."""
    due = read_time(run_at, "--run-at")
    check_one("--delay", "--run-at", given=(due is not None) + (delay is not None))
    if priority is None and delay is None and due is None:
        raise typer.BadParameter("give one: what is to change", param_hint="--priority, --delay, --run-at")

    async def work(client: Client) -> bool:
        job = await client.change(id, priority=priority, run_at=due, delay_s=delay)
        answer(job, as_json, f"{job.id} {job.status}")
        return True

    call_server(work)


_COMMANDS: tuple[Callable[..., None], ...] = (submit, change)
COMMANDS = frozenset(command.__name__ for command in _COMMANDS)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in _COMMANDS:
        app.command()(command)
