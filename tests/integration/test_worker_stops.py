"""How running jobs are told to stop: cancellation, the worker's shutdown, a lost lease."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.running import OWNER, Jobs, open_jobs, running_worker
from tests.support.timing import scaled
from tidings.protocol import JobState
from tidings_tasks import (
    JobCancelled,
    JobContext,
    JobHandedBack,
    JobLost,
    JobTimedOut,
    SyncJobContext,
    attempt,
    job,
)
from tidings_tasks.registry import Registry
from tidings_tasks.store import Keyspace, Verb, Write, WriteCode, commands
from tidings_tasks.worker import execution


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace, registry: Registry) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, keyspace, registry) as found:
        yield found


async def test_async_job_is_cancelled_at_its_await(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """The function learns it at once, may still write while it cleans up, and the job ends as cancelled."""

    @job("sleepy", registry=registry)
    async def sleepy(ctx: JobContext) -> None:
        await ctx.output("started")
        try:
            await asyncio.sleep(3600)
        except JobCancelled:
            assert ctx.cancelled
            await ctx.log("info", "cleaning up")
            async with asyncio.timeout(5):
                await asyncio.sleep(0)
            raise

    job_id = await jobs.submit(sleepy)
    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        await jobs.until_kind(job_id, "output")
        assert await jobs.cancel(job_id) == "cancelling"
        record = await jobs.until(job_id, timeout_s=3)
    assert record.state is JobState.CANCELLED
    assert await jobs.kinds(job_id) == ["queued", "started", "output", "cancelling", "log", "cancelled"]
    (cancelled,) = await jobs.events(job_id, "cancelled")
    assert cancelled["data"]["by"] == "alice"


async def test_sync_job_is_cancelled_at_its_next_context_call(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """A thread can't be interrupted; its next call of the context raises."""

    @job("busy", registry=registry)
    def busy(ctx: SyncJobContext) -> None:
        while True:
            ctx.progress(message="still here")
            ctx.flush()

    job_id = await jobs.submit(busy)
    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        await jobs.until_kind(job_id, "progress")
        await jobs.cancel(job_id)
        assert (await jobs.until(job_id, timeout_s=3)).state is JobState.CANCELLED


async def test_queued_job_is_cancelled_and_never_runs(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """A job that waits is taken out of its queue at once."""
    ran: list[str] = []

    @job("mark", registry=registry)
    async def mark(ctx: JobContext) -> None:
        ran.append(ctx.job_id)

    first, second = await jobs.submit(mark), await jobs.submit(mark)
    assert await jobs.cancel(first) == "cancelled"
    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        await jobs.until(second)
    assert ran == [second]
    assert (await jobs.read(first)).state is JobState.CANCELLED


async def test_swallowed_cancellation_still_ends_the_job_as_its_function_says(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """A function that catches the cancellation and returns has completed."""

    @job("stubborn", registry=registry)
    async def stubborn(ctx: JobContext) -> str:
        await ctx.output("started")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "partial"
        return "whole"

    job_id = await jobs.submit(stubborn)
    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        await jobs.until_kind(job_id, "output")
        await jobs.cancel(job_id)
        record = await jobs.until(job_id)
    assert (record.state, record.result) == (JobState.COMPLETED, b'"partial"')


async def test_function_that_goes_on_is_asked_again(
    jobs: Jobs,
    valkey_url: str,
    keyspace: Keyspace,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Swallowing a cancellation once does not make a job immortal; plain functions are asked at their calls."""
    monkeypatch.setattr(attempt, "ASK_AGAIN_S", 0.05)
    monkeypatch.setattr(execution, "ASK_AGAIN_S", 0.05)
    asked = {"async": 0, "sync": 0}

    @job("reluctant", registry=registry)
    async def reluctant(ctx: JobContext) -> None:
        await ctx.output("started")
        while True:
            try:
                await asyncio.sleep(3600)
            except JobCancelled:
                asked["async"] += 1
                if asked["async"] == 3:
                    raise

    @job("reluctant.sync", registry=registry)
    def reluctant_sync(ctx: SyncJobContext) -> None:
        while True:
            try:
                ctx.output("started")
                ctx.flush()
            except JobCancelled:
                asked["sync"] += 1
                if asked["sync"] == 3:
                    raise

    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        ids = [await jobs.submit(reluctant), await jobs.submit(reluctant_sync)]
        for job_id in ids:
            await jobs.until_kind(job_id, "output")
            await jobs.cancel(job_id)
        for job_id in ids:
            assert (await jobs.until(job_id)).state is JobState.CANCELLED
    assert asked == {"async": 3, "sync": 3}


async def test_timed_out_function_that_goes_on_is_left_behind(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """After a moment for its clean-up the attempt ends without it, and takes nothing from it any more."""
    late: list[str] = []
    tried = asyncio.Event()

    @job("overdue", timeout_s=0.1, max_attempts=1, registry=registry)
    async def overdue(ctx: JobContext) -> str:
        try:
            await asyncio.sleep(3600)
        except JobTimedOut:
            await ctx.log("info", "cleaning up")
        await ended.wait()
        try:
            await ctx.output("too late")
        except JobTimedOut as error:
            late.append(str(error))
        tried.set()
        return "too late"

    ended = asyncio.Event()
    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        job_id = await jobs.submit(overdue)
        record = await jobs.until(job_id, timeout_s=5)
        assert record.state is JobState.FAILED
        assert record.error is not None
        assert b'"code":"timeout"' in record.error
        ended.set()
        async with asyncio.timeout(scaled(5)):
            await tried.wait()
    assert late == ["the job ran longer than its timeout"]
    assert await jobs.kinds(job_id) == ["queued", "started", "log", "failed"]


async def test_cancellation_reaches_into_task_groups_and_timeouts(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """Structured concurrency inside a function works as ever, before and during a cancellation."""
    seen: list[str] = []

    @job("structured", registry=registry)
    async def structured(ctx: JobContext) -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(3600)
        except TimeoutError:
            seen.append("timeout")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                await asyncio.sleep(3600)
        except* ZeroDivisionError:
            seen.append("group")
        await ctx.output("ready")
        try:
            async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
                group.create_task(wait())
                await asyncio.sleep(3600)
        except* JobCancelled:  # before Python 3.13 a TaskGroup wraps it in a group
            seen.append("cancelled")
            raise

    async def fail() -> None:
        raise ZeroDivisionError

    async def wait() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("child")
            raise

    job_id = await jobs.submit(structured)
    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        await jobs.until_kind(job_id, "output")
        await jobs.cancel(job_id)
        assert (await jobs.until(job_id)).state is JobState.CANCELLED
    assert seen == ["timeout", "group", "child", "cancelled"]


async def test_shutdown_lets_jobs_end_within_the_grace(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """A worker that is told to stop claims nothing more, and waits for what runs."""

    @job("last", registry=registry)
    async def last(ctx: JobContext) -> bool:
        await ctx.output("started")
        while not ctx.shutting_down:  # noqa: ASYNC110  # that is how a function asks
            await asyncio.sleep(0.01)
        return True

    async with running_worker(
        valkey_url, keyspace, registry, tmp_path, shutdown_grace_s=30, worker_concurrency=1
    ) as worker:
        first, second = await jobs.submit(last), await jobs.submit(last)
        await jobs.until_kind(first, "output")
        worker.stop.set()
        await worker.ended()
        assert (await jobs.read(first)).state is JobState.COMPLETED
        assert (await jobs.read(second)).state is JobState.QUEUED


async def test_what_does_not_end_in_time_is_handed_back(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """Both kinds of functions go back to their queue without counting a try, and the next worker runs them at once."""
    release = threading.Event()
    told: list[str] = []

    @job("long", max_attempts=1, registry=registry)
    async def long(ctx: JobContext) -> int:
        await ctx.output("started")
        if ctx.attempt == 1:
            try:
                await asyncio.sleep(3600)
            except JobHandedBack:
                told.append("async")
                raise
        return ctx.attempt

    @job("long.sync", max_attempts=1, registry=registry)
    def long_sync(ctx: SyncJobContext) -> int:
        ctx.output("started")
        if ctx.attempt == 1:
            release.wait(30)
        return ctx.attempt

    ids = [await jobs.submit(long), await jobs.submit(long_sync)]
    async with running_worker(valkey_url, keyspace, registry, tmp_path, shutdown_grace_s=0.1) as worker:
        for job_id in ids:
            await jobs.until_kind(job_id, "output")
        worker.stop.set()
        await worker.ended()
    for job_id in ids:
        record = await jobs.read(job_id)
        assert (record.state, record.tries) == (JobState.QUEUED, 0)
        assert (await jobs.events(job_id))[-1]["data"]["reason"] == "shutdown"
    assert told == ["async"]
    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        for job_id in ids:
            record = await jobs.until(job_id)
            assert (record.state, record.result) == (JobState.COMPLETED, b"2")
    release.set()


async def test_second_signal_cuts_the_grace_short(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """``hurry`` hands back at once."""

    @job("endless", registry=registry)
    async def endless(ctx: JobContext) -> None:
        await ctx.output("started")
        await asyncio.sleep(3600)

    job_id = await jobs.submit(endless)
    async with running_worker(valkey_url, keyspace, registry, tmp_path, shutdown_grace_s=600) as worker:
        await jobs.until_kind(job_id, "output")
        worker.stop.set()
        worker.hurry.set()
        await worker.ended(5)
    assert (await jobs.read(job_id)).state is JobState.QUEUED


async def test_function_that_never_stops_does_not_keep_the_worker(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """It swallows everything it is told: at shutdown it is abandoned and its job handed back."""

    @job("deaf", registry=registry)
    async def deaf(ctx: JobContext) -> None:
        await ctx.output("started")
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    job_id = await jobs.submit(deaf)
    async with running_worker(valkey_url, keyspace, registry, tmp_path, shutdown_grace_s=0) as worker:
        await jobs.until_kind(job_id, "output")
        worker.stop.set()
        await worker.ended(10)
    assert (await jobs.read(job_id)).state is JobState.QUEUED


async def test_attempt_that_lost_its_lease_is_stopped_and_can_not_write(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """Another attempt has the job: the first one's function is told, and its writes are refused."""
    told = asyncio.Event()

    @job("slow", registry=registry)
    async def slow(ctx: JobContext) -> None:
        await ctx.output("started")
        try:
            await asyncio.sleep(3600)
        except JobLost:
            told.set()
            raise

    job_id = await jobs.submit(slow)
    async with running_worker(
        valkey_url, keyspace, registry, tmp_path, queues=["default"], lease_s=1
    ) as worker:
        await jobs.until_kind(job_id, "output")
        # Somebody else hands the first attempt back and takes the job, as after a lapsed lease.
        release = Write(job_id, 1, 100, Verb.RELEASE, b"null")
        worker.stop.clear()
        reply = await jobs.store.run(
            commands.step(
                0, worker="thief", call=1, lease_ms=60_000, writes=[release], wants=[("default", 1)], most=1
            )
        )
        assert [claim.attempt for claim in reply.claims] == [2]
        async with asyncio.timeout(scaled(5)):
            await told.wait()
        stale = Write(job_id, 1, 101, Verb.COMPLETE, b'"stale"')
        late = await jobs.store.run(commands.step(0, worker="late", call=1, lease_ms=1000, writes=[stale]))
        assert late.codes == [WriteCode.REFUSED]
        assert (await jobs.read(job_id)).state is JobState.RUNNING
        done = Write(job_id, 2, 1, Verb.COMPLETE, b'"second"')
        await jobs.store.run(commands.step(0, worker="thief", call=2, lease_ms=1000, writes=[done]))
    record = await jobs.read(job_id)
    assert (record.state, record.result, record.attempt) == (JobState.COMPLETED, b'"second"', 2)
    assert record.tenant == OWNER
