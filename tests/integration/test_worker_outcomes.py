"""What becomes of a job by what its function returns or raises."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.integration.running import Jobs, open_jobs, running_worker
from tidings.protocol import JobState
from tidings_tasks import Fail, JobContext, Retry, SyncJobContext, job
from tidings_tasks.registry import Registry
from tidings_tasks.store import Keyspace


class Numbers(BaseModel):
    a: int
    b: int = 1


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def jobs(
    valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> AsyncIterator[Jobs]:
    async with (
        open_jobs(valkey_url, keyspace, registry) as found,
        running_worker(valkey_url, keyspace, registry, tmp_path, max_result_bytes=2048),
    ):
        yield found


async def test_async_function_runs_to_completed(jobs: Jobs, registry: Registry) -> None:
    """The input arrives validated, the result is stored, and the log has each event once, in order."""

    @job("add", registry=registry)
    async def add(ctx: JobContext, input: Numbers) -> dict[str, int]:
        await ctx.progress(50, "half")
        await ctx.output("part")
        await ctx.log("info", "adding", a=input.a)
        return {"sum": input.a + input.b}

    job_id = await jobs.submit(add, {"a": 2})
    record = await jobs.until(job_id)
    assert record.state is JobState.COMPLETED
    assert record.result == b'{"sum":3}'
    events = await jobs.events(job_id)
    assert [e["kind"] for e in events] == ["queued", "started", "progress", "output", "log", "completed"]
    assert [e["seq"] for e in events] == [1, 2, 3, 4, 5, 6]
    assert events[2]["data"] == {
        "percent": 50, "message": "half", "current": None, "total": None, "step": None, "eta_s": None, "meta": None,
    }  # fmt: skip
    assert events[3]["data"] == {"chunk": "part", "stream": "default"}
    assert events[4]["data"] == {"level": "info", "message": "adding", "fields": {"a": 2}}
    assert {e["attempt"] for e in events[1:]} == {1}


async def test_sync_function_runs_on_a_thread(jobs: Jobs, registry: Registry) -> None:
    """A plain function gets the same context with plain calls, and does not block the loop."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    @job("plain", registry=registry)
    def plain(ctx: SyncJobContext, input: Numbers) -> int:
        for _ in ctx.track(range(input.a), message="counting"):
            ctx.output("x")
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
        return input.a

    job_id = await jobs.submit(plain, Numbers(a=3))
    await jobs.until_kind(job_id, "output", 3)
    release.set()
    record = await jobs.until(job_id)
    assert (record.state, record.result) == (JobState.COMPLETED, b"3")
    outputs = await jobs.events(job_id, "progress")
    assert outputs[-1]["data"]["percent"] == 100
    assert outputs[-1]["data"]["message"] == "counting"


async def test_models_and_dates_are_results(jobs: Jobs, registry: Registry) -> None:
    """A result is serialised by the return annotation, or by what it is."""

    class Report(BaseModel):
        at: datetime
        rows: list[Numbers]

    @job("annotated", registry=registry)
    async def annotated(ctx: JobContext) -> Report:
        return Report(at=datetime(2026, 1, 1, tzinfo=UTC), rows=[Numbers(a=1)])

    @job("bare", registry=registry)
    async def bare(ctx: JobContext):  # type: ignore[no-untyped-def]  # that is what is tested
        return {"at": datetime(2026, 1, 1, tzinfo=UTC), "row": Numbers(a=1)}

    first, second = await jobs.submit(annotated), await jobs.submit(bare)
    assert (await jobs.until(first)).result == b'{"at":"2026-01-01T00:00:00Z","rows":[{"a":1,"b":1}]}'
    assert (await jobs.until(second)).result == b'{"at":"2026-01-01T00:00:00Z","row":{"a":1,"b":1}}'


async def test_result_that_is_no_json_fails_without_retry(jobs: Jobs, registry: Registry) -> None:
    """Another try would make the same result."""

    @job("odd", registry=registry)
    async def odd(ctx: JobContext):  # type: ignore[no-untyped-def]  # that is what is tested
        return object()

    @job("wrong", registry=registry)
    async def wrong(ctx: JobContext) -> int:
        return "seven"  # type: ignore[return-value]  # that is what is tested

    for job_type in (odd, wrong):
        record = await jobs.until(await jobs.submit(job_type))
        assert record.state is JobState.FAILED
        assert record.error is not None
        assert b'"code":"invalid_result"' in record.error
        assert record.attempt == 1


async def test_result_over_the_bound_fails_without_retry(jobs: Jobs, registry: Registry) -> None:
    """``max_result_bytes`` holds."""

    @job("large", registry=registry)
    async def large(ctx: JobContext) -> str:
        return "x" * 3000

    record = await jobs.until(await jobs.submit(large))
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert b'"code":"result_too_large"' in record.error


async def test_failure_is_retried_with_backoff_until_it_succeeds(jobs: Jobs, registry: Registry) -> None:
    """Each failure says when it comes back; the delays are those listed, at most a quarter longer."""

    @job("flaky", max_attempts=4, backoff_s=(0.05, 0.1), registry=registry)
    async def flaky(ctx: JobContext) -> int:
        if ctx.attempt < 4:
            raise RuntimeError(f"attempt {ctx.attempt} fails")
        return ctx.attempt

    job_id = await jobs.submit(flaky)
    record = await jobs.until(job_id)
    assert (record.state, record.result, record.tries) == (JobState.COMPLETED, b"4", 3)
    retrying = await jobs.events(job_id, "retrying")
    assert [e["data"]["next_attempt"] for e in retrying] == [2, 3, 4]
    delays = [e["data"]["delay_s"] for e in retrying]
    for delay, listed in zip(delays, (0.05, 0.1, 0.1), strict=True):
        assert listed <= delay <= listed * 1.25
    assert retrying[0]["data"]["error"] == {
        "code": "exception", "type": "RuntimeError", "message": "attempt 1 fails",
    }  # fmt: skip


async def test_last_try_goes_to_the_dead_letters(
    jobs: Jobs, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """The error has no traceback; that is in the worker's log, with the job's id."""

    @job("hopeless", max_attempts=2, backoff_s=(0.01,), registry=registry)
    async def hopeless(ctx: JobContext) -> None:
        raise ValueError("no" + "o" * 5000)

    job_id = await jobs.submit(hopeless)
    record = await jobs.until(job_id)
    assert (record.state, record.tries, record.attempt) == (JobState.FAILED, 2, 2)
    (failed,) = await jobs.events(job_id, "failed")
    assert failed["data"]["dead"] is True
    error = failed["data"]["error"]
    assert error["type"] == "ValueError"
    assert len(error["message"].encode()) <= 2048
    assert "Traceback" not in error["message"]
    logged = [r for r in caplog.records if r.levelno == logging.ERROR and getattr(r, "job_id", "") == job_id]
    assert len(logged) == 2
    assert logged[0].exc_info is not None


async def test_fail_ends_the_job_at_once(jobs: Jobs, registry: Registry) -> None:
    """``Fail`` is the author's decision: no retry, no dead letter."""

    @job("refuse", max_attempts=5, registry=registry)
    def refuse(ctx: SyncJobContext) -> None:
        raise Fail("quota_exceeded", "come back tomorrow")

    job_id = await jobs.submit(refuse)
    await jobs.until(job_id)
    (failed,) = await jobs.events(job_id, "failed")
    assert failed["data"]["error"] == {
        "code": "quota_exceeded", "type": "Fail", "message": "come back tomorrow",
    }  # fmt: skip
    assert failed["data"]["dead"] is False
    assert failed["attempt"] == 1


async def test_retry_names_its_own_delay(jobs: Jobs, registry: Registry) -> None:
    """``Retry(delay_s=…)`` goes before the type's backoff."""

    @job("later", max_attempts=2, backoff_s=(600,), registry=registry)
    async def later(ctx: JobContext) -> str:
        if ctx.attempt == 1:
            raise Retry(delay_s=0.02)
        return "done"

    job_id = await jobs.submit(later)
    assert (await jobs.until(job_id)).state is JobState.COMPLETED
    (retrying,) = await jobs.events(job_id, "retrying")
    assert retrying["data"]["delay_s"] == 0.02
    assert retrying["data"]["error"]["code"] == "retry"


async def test_timeout_is_retried_then_failed(jobs: Jobs, registry: Registry) -> None:
    """An async function is stopped at its await; a time-out counts as a try."""
    seen: list[str] = []

    @job("slow", timeout_s=0.2, max_attempts=2, backoff_s=(0.01,), registry=registry)
    async def slow(ctx: JobContext) -> None:
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    job_id = await jobs.submit(slow)
    record = await jobs.until(job_id)
    assert (record.state, record.tries) == (JobState.FAILED, 2)
    assert seen == ["JobTimedOut", "JobTimedOut"]
    (failed,) = await jobs.events(job_id, "failed")
    assert failed["data"]["error"]["code"] == "timeout"
    assert 0.2 <= failed["data"]["duration_s"] < 1


async def test_sync_timeout_is_reported_while_the_thread_still_runs(jobs: Jobs, registry: Registry) -> None:
    """The thread is given up: the job ends at its time, and what the thread writes later is kept from the log."""
    release = asyncio.Event()
    told: list[str] = []
    loop = asyncio.get_running_loop()

    @job("stuck", timeout_s=0.1, max_attempts=1, registry=registry)
    def stuck(ctx: SyncJobContext) -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
        try:
            ctx.output("too late")
        except BaseException as error:
            told.append(type(error).__name__)
            loop.call_soon_threadsafe(ended.set)
            raise

    ended = asyncio.Event()
    job_id = await jobs.submit(stuck)
    record = await jobs.until(job_id)
    assert record.state is JobState.FAILED
    release.set()
    await ended.wait()
    assert told == ["JobTimedOut"]
    assert "output" not in await jobs.kinds(job_id)


async def test_input_that_is_not_valid_any_more_fails(jobs: Jobs, registry: Registry) -> None:
    """A job that was stored by an older version ends with the field that is wrong, without a retry."""

    @job("typed", registry=registry)
    async def old(ctx: JobContext, input: Numbers) -> None: ...

    class Strict(BaseModel):
        a: str

    job_id = await jobs.submit(old, {"a": 5}, delay_s=0.3)
    newer = Registry()

    @job("typed", registry=newer)
    async def new(ctx: JobContext, input: Strict) -> None: ...

    registry._types["typed"] = new
    record = await jobs.until(job_id)
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert b'"code":"invalid_input"' in record.error
    assert b"input.a" in record.error


async def test_unknown_type_is_tried_again_then_dead(jobs: Jobs, registry: Registry) -> None:
    """Another worker may know it while versions roll; at the end the dead letter says what was missing."""
    elsewhere = Registry()

    @job("report.rows", registry=registry)
    async def known(ctx: JobContext) -> None: ...

    @job("report.row", max_attempts=2, backoff_s=(0.01,), registry=elsewhere)
    async def unknown(ctx: JobContext) -> None: ...

    job_id = await jobs.submit(unknown)
    record = await jobs.until(job_id)
    assert (record.state, record.tries) == (JobState.FAILED, 2)
    assert record.error is not None
    assert b'"code":"unknown_job_type"' in record.error
    assert b"did you mean report.rows" in record.error


async def test_sys_exit_in_a_job_ends_the_job_not_the_worker(jobs: Jobs, registry: Registry) -> None:
    """``SystemExit`` is a failure of its job."""

    @job("leave", max_attempts=1, registry=registry)
    async def leave(ctx: JobContext) -> None:
        raise SystemExit(3)

    @job("stay", registry=registry)
    async def stay(ctx: JobContext) -> str:
        return "here"

    assert (await jobs.until(await jobs.submit(leave))).state is JobState.FAILED
    assert (await jobs.until(await jobs.submit(stay))).state is JobState.COMPLETED
