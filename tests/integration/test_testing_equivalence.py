"""A job that is run in memory leaves the same log and record as one that a real worker runs on a real Valkey."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.integration.running import OWNER, Jobs, open_jobs, running_worker
from tidings.protocol import JobState
from tidings.protocol.errors import IdempotencyConflict
from tidings_tasks import Fail, JobContext, Retry, SyncJobContext, job
from tidings_tasks.job_type import JobType
from tidings_tasks.registry import Registry
from tidings_tasks.store import JobRecord, Keyspace, Verb, Write, commands
from tidings_tasks.testing import InMemoryJobs, JobRun, Moment

Types = Callable[[Registry], JobType[Any, Any]]


class Rows(BaseModel):
    rows: int = 3


@dataclass(frozen=True)
class Scenario:
    """A job, and what is done to it: in memory at a moment, with the real worker once its log has so many of a kind."""

    make: Types
    moments: dict[str, Moment] = field(default_factory=dict)
    act: Callable[[Jobs, str], Awaitable[Any]] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    input: Any = None
    change: Types | None = None
    """How the type is declared when the job is run, where that is not how it was at its submission."""


def normalised(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take out what differs between any two runs: ids, epochs, times, and the worker's name."""
    found = []
    for event in events:
        data = dict(event["data"])
        for name in ("duration_s", "run_at", "worker", "eta_s"):
            data.pop(name, None)
        found.append({**event, "job_id": "", "epoch": "", "at": "", "data": data})
    return found


def summary(record: JobRecord) -> tuple[Any, ...]:
    """What must be equal of two records."""
    return (
        record.state, record.queue, record.priority, record.head, record.attempt, record.tries, record.progress,
        record.result, record.error, record.cancel_requested, record.fingerprint,
        record.spec,
    )  # fmt: skip


async def wait(first_only: bool, attempt: int) -> None:
    """Wait for what the test does to the job; after the first attempt it is left alone."""
    if not first_only or attempt == 1:
        await asyncio.Event().wait()


def busy(registry: Registry) -> JobType[Any, Any]:
    """Send something of each kind, with runs of progress."""

    @job("busy", queue="reports", registry=registry)
    async def busy(ctx: JobContext, input: Rows) -> dict[str, Any]:
        for number in range(input.rows):
            await ctx.progress(current=number, total=input.rows, message=f"row {number}", meta={"n": number})
        await ctx.output({"row": 1}, stream="rows")
        await ctx.progress(99)
        await ctx.progress(step="ending")
        await ctx.log("warning", "nearly", left=1)
        logging.getLogger("app").info("by %s", "hand", extra={"rows": 3})
        await ctx.stream("words").write("one")
        return {"owner": ctx.owner, "attempt": ctx.attempt, "metadata": ctx.metadata}

    return busy


def plain(registry: Registry) -> JobType[Any, Any]:
    """The same from a plain function, with ``track``."""

    @job("plain", registry=registry)
    def plain(ctx: SyncJobContext, input: Rows) -> int:
        for number in ctx.track(range(input.rows), message="counting"):
            ctx.output(number)
        ctx.progress(step="over")
        ctx.log("info", "done")
        return input.rows

    return plain


def flaky(registry: Registry) -> JobType[Any, Any]:
    """Fail twice, then complete."""

    @job("flaky", max_attempts=3, backoff_s=(0,), registry=registry)
    async def flaky(ctx: JobContext) -> int:
        await ctx.progress(50)
        if ctx.attempt < 3:
            raise RuntimeError(f"attempt {ctx.attempt}")
        return ctx.attempt

    return flaky


def dead(registry: Registry) -> JobType[Any, Any]:
    """Fail until no try is left."""

    @job("dead", max_attempts=2, backoff_s=(0,), registry=registry)
    def dead(ctx: SyncJobContext) -> None:
        raise ValueError("no" + "o" * 3000)

    return dead


def failing(registry: Registry) -> JobType[Any, Any]:
    """Ask to be tried again, then give up."""

    @job("failing", max_attempts=5, registry=registry)
    async def failing(ctx: JobContext) -> None:
        if ctx.attempt == 1:
            raise Retry(delay_s=0.02, message="busy")
        raise Fail("closed", "come back tomorrow")

    return failing


def odd(registry: Registry) -> JobType[Any, Any]:
    """Return what is no result."""

    @job("odd", registry=registry)
    async def odd(ctx: JobContext) -> int:
        return "seven"  # type: ignore[return-value]  # that is what is tested

    return odd


def large(registry: Registry) -> JobType[Any, Any]:
    """Return more than is kept."""

    @job("large", registry=registry)
    async def large(ctx: JobContext) -> str:
        return "x" * 2_000_000

    return large


def waiting(first_only: bool, *, timeout_s: float = 60) -> Types:
    """Send one output, then wait to be stopped."""

    def make(registry: Registry) -> JobType[Any, Any]:
        @job("waiting", timeout_s=timeout_s, max_attempts=2, backoff_s=(0,), registry=registry)
        async def waiting(ctx: JobContext) -> int:
            await ctx.output(ctx.attempt)
            await wait(first_only, ctx.attempt)
            return ctx.attempt

        return waiting

    return make


def stubborn(registry: Registry) -> JobType[Any, Any]:
    """Go on until the context says that it was cancelled, and clean up."""

    @job("stubborn", registry=registry)
    def stubborn(ctx: SyncJobContext) -> None:
        ctx.output("begun")
        try:
            while True:
                ctx.flush()
                ctx.progress(message="on and on") if ctx.cancelled else None
        finally:
            ctx.log("info", "cleaned up")

    return stubborn


def named(registry: Registry) -> JobType[Any, Any]:
    """Take rows by a number."""

    @job("named", registry=registry)
    async def named(ctx: JobContext, input: Rows) -> int:
        return input.rows

    return named


def renamed(registry: Registry) -> JobType[Any, Any]:
    """Take rows by another name."""

    class Lines(BaseModel):
        lines: int

    @job("named", registry=registry)
    async def named(ctx: JobContext, input: Lines) -> int:
        return input.lines

    return named


def unknown(registry: Registry) -> JobType[Any, Any]:
    """Be called something else than what was submitted."""

    @job("called", max_attempts=2, backoff_s=(0,), registry=registry)
    async def called(ctx: JobContext) -> None: ...

    return called


def gone(registry: Registry) -> JobType[Any, Any]:
    """Forget all types but one."""
    registry._types.clear()

    @job("called.otherwise", registry=registry)
    async def otherwise(ctx: JobContext) -> None: ...

    return otherwise


async def cancel_at_output(jobs: Jobs, job_id: str) -> None:
    await jobs.until_kind(job_id, "output")
    await jobs.store.run(commands.cancel(job_id, by=b'"test"'))


async def cancel(jobs: Jobs, job_id: str) -> None:
    await jobs.store.run(commands.cancel(job_id, by=b'"test"'))


SCENARIOS = {
    "completed": Scenario(
        busy, options={"metadata": {"k": 1}, "tags": ["t"], "priority": 2}, input={"rows": 4}
    ),
    "completed, plain": Scenario(plain),
    "retried, then completed": Scenario(flaky),
    "dead": Scenario(dead),
    "Retry, then Fail": Scenario(failing),
    "no result": Scenario(odd),
    "too large a result": Scenario(large),
    "delayed": Scenario(flaky, options={"delay_s": 0.05}),
    "timed out, then completed": Scenario(waiting(True, timeout_s=0.2), {"time_out_at": "output"}),
    "timed out twice": Scenario(waiting(False, timeout_s=0.1)),
    "cancelled while it runs": Scenario(waiting(False), {"cancel_at": "output"}, cancel_at_output),
    "cancelled while it runs, plain": Scenario(stubborn, {"cancel_at": "output"}, cancel_at_output),
    "cancelled while it waits": Scenario(flaky, {"cancel_at": "scheduled"}, cancel, {"delay_s": 3600}),
    "no longer valid": Scenario(named, change=renamed),
    "no longer known": Scenario(unknown, change=gone),
}


def run_in_memory(scenario: Scenario) -> JobRun:
    registry = Registry()
    jobs = InMemoryJobs(registry)
    options = {"owner": OWNER.owner, "org": OWNER.org, **scenario.options}
    run = jobs.submit(scenario.make(registry), scenario.input, **options)
    if scenario.change is not None:
        registry._types.clear()
        scenario.change(registry)
    return jobs.run(run, **scenario.moments)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_logs_are_equal(name: str, valkey_url: str, keyspace: Keyspace, tmp_path: Path) -> None:
    """Event by event, with attempts, folding and errors; and so are the records."""
    scenario = SCENARIOS[name]
    run = await asyncio.to_thread(run_in_memory, scenario)
    registry = Registry()
    async with open_jobs(valkey_url, keyspace, registry) as jobs:
        job_id = await jobs.submit(scenario.make(registry), scenario.input, **scenario.options)
        if scenario.change is not None:
            registry._types.clear()
            scenario.change(registry)
        async with running_worker(valkey_url, keyspace, registry, tmp_path):
            if scenario.act is not None:
                await scenario.act(jobs, job_id)
            record = await jobs.until(job_id)
        assert normalised(run.events) == normalised(await jobs.events(job_id))
        assert summary(run.record) == summary(record)


async def test_a_job_that_is_handed_back_is_equal(
    valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """By a worker that is stopped, and run again by the next one."""
    scenario = Scenario(waiting(True), {"hand_back_at": "output"})
    run = await asyncio.to_thread(run_in_memory, scenario)
    registry = Registry()
    async with open_jobs(valkey_url, keyspace, registry) as jobs:
        job_id = await jobs.submit(scenario.make(registry))
        async with running_worker(valkey_url, keyspace, registry, tmp_path, shutdown_grace_s=0):
            await jobs.until_kind(job_id, "output")
        async with running_worker(valkey_url, keyspace, registry, tmp_path):
            record = await jobs.until(job_id)
        assert normalised(run.events) == normalised(await jobs.events(job_id))
        assert summary(run.record) == summary(record)


async def test_a_job_whose_worker_is_lost_is_equal(
    valkey_url: str, keyspace: Keyspace, tmp_path: Path
) -> None:
    """One that took it, wrote, and was never heard of again."""
    scenario = Scenario(waiting(True), {"lose_at": "output"})
    run = await asyncio.to_thread(run_in_memory, scenario)
    registry = Registry()
    async with open_jobs(valkey_url, keyspace, registry) as jobs:
        job_id = await jobs.submit(scenario.make(registry))
        await jobs.store.run(commands.step(0, worker="lost", call=1, lease_ms=1, wants=[("default", 1)]))
        output = Write(job_id, 1, 1, Verb.OUTPUT, b'{"chunk":1,"stream":"default"}')
        await jobs.store.run(commands.step(0, worker="lost", call=2, lease_ms=1, writes=[output]))
        async with running_worker(valkey_url, keyspace, registry, tmp_path):
            record = await jobs.until(job_id)
        assert normalised(run.events) == normalised(await jobs.events(job_id))
        assert summary(run.record) == summary(record)


async def test_idempotency_keys_are_equal(valkey_url: str, keyspace: Keyspace) -> None:
    """The same request gives the first job, another one a conflict, whoever else uses the key."""
    registry = Registry()
    rows = named(registry)
    memory = InMemoryJobs(registry)
    async with open_jobs(valkey_url, keyspace, registry) as jobs:

        async def submit(fingerprint: str, owner: str) -> tuple[str, str]:
            options = {"idempotency_key": "k", "input": {"rows": int(fingerprint)}}
            mine = memory.submit(rows, **options, owner=owner).id
            tenant = type(OWNER)(owner)
            theirs = await jobs.submit(
                rows, options["input"], idempotency_key="k", fingerprint=fingerprint, tenant=tenant
            )
            return mine, theirs

        first = await submit("1", "alice")
        assert await submit("1", "alice") == first
        other = await submit("2", "bob")
        assert not set(other) & set(first)
        with pytest.raises(IdempotencyConflict):
            memory.submit(rows, {"rows": 2}, owner="alice", idempotency_key="k")
        with pytest.raises(IdempotencyConflict):
            await jobs.submit(
                rows, {"rows": 2}, idempotency_key="k", fingerprint="2", tenant=type(OWNER)("alice")
            )
        assert [run.state for run in memory.submitted] == [JobState.QUEUED] * 2
