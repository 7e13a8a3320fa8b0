"""``run_job``: what comes of a job that is run in memory, and where it can be stopped."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import dramatiq
import pytest
from pydantic import BaseModel

from tidings.protocol.errors import InvalidInput
from tidings_tasks import (
    Fail,
    JobCancelled,
    JobContext,
    JobStopped,
    Retry,
    SyncJobContext,
    connection,
    current_job,
    job,
)
from tidings_tasks.queue.broker import TidingsBroker
from tidings_tasks.registry import Registry
from tidings_tasks.testing import InMemoryJobs, JobRun, run_job, run_job_async


class Rows(BaseModel):
    rows: int


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_an_async_job_is_seen_whole(registry: Registry) -> None:
    """Its result, its log as watchers get it, and what is made of the log."""

    @job("whole", registry=registry)
    async def whole(ctx: JobContext, input: Rows) -> dict[str, Any]:
        await ctx.progress(50, "half")
        await ctx.output({"row": 1})
        stream = ctx.stream("words")
        for word in ("one ", "two"):
            await stream.write(word)
        await ctx.flush()
        await ctx.log("info", "saving", rows=input.rows)
        logging.getLogger("app").warning("by hand")
        return {"owner": ctx.owner, "org": ctx.org, "meta": ctx.metadata, "id": ctx.job_id}

    run = run_job(whole, Rows(rows=3), owner="alice", org="acme", metadata={"k": 1})
    assert (run.state, run.error, run.attempts, run.delays_s) == ("completed", None, 1, [])
    assert run.result == {"owner": "alice", "org": "acme", "meta": {"k": 1}, "id": run.id}
    assert run.kinds == ["queued", "started", "progress", "output", "output", "log", "log", "completed"]
    assert [event["seq"] for event in run.events] == list(range(1, 9))
    assert list(run.events[2]) == ["job_id", "epoch", "seq", "kind", "at", "attempt", "data"]
    assert run.progress is not None
    assert (run.progress["percent"], run.progress["message"]) == (50, "half")
    assert run.outputs == [{"row": 1}, "one two"]
    assert run.text("words") == "one two"
    assert run.logs == [
        {"level": "info", "message": "saving", "fields": {"rows": 3}},
        {"level": "warning", "message": "by hand", "fields": {"logger": "app"}},
    ]
    assert (run.type, run.input) == ("whole", {"rows": 3})


def test_a_plain_job_runs_in_the_tests_own_thread(registry: Registry) -> None:
    """So that what the test has opened for its thread can be used; a loop of its own may be run in it."""

    @job("plain", registry=registry)
    def plain(ctx: SyncJobContext, input: Rows) -> str:
        for _ in ctx.track(range(input.rows)):
            pass
        ctx.output("done")
        return asyncio.run(asyncio.sleep(0, threading.current_thread().name))

    run = run_job(plain, {"rows": 20})
    assert run.result == threading.current_thread().name
    assert run.kinds == ["queued", "started", "progress", "output", "completed"]
    assert run.events[2]["prev"] == 2, "a run of progress is folded, as in the log"


def test_files_are_there_with_what_is_in_them(registry: Registry) -> None:
    """And described as the result describes them."""

    @job("file", registry=registry)
    async def file(ctx: JobContext) -> dict[str, Any]:
        return await ctx.save_file("a.csv", b"a,b\n", "text/csv")

    run = run_job(file)
    (saved,) = run.files
    assert (saved.name, saved.media_type, saved.data, saved.text) == ("a.csv", "text/csv", b"a,b\n", "a,b\n")
    assert run.result["id"] == saved.info.id


def test_retries_take_no_time(registry: Registry) -> None:
    """Each delay is the type's, at most a quarter longer, and nobody waits for it."""

    @job("flaky", max_attempts=3, backoff_s=(10, 3600), registry=registry)
    async def flaky(ctx: JobContext) -> int:
        if ctx.attempt < 3:
            raise RuntimeError("not yet")
        return ctx.attempt

    began = time.monotonic()
    run = run_job(flaky)
    assert time.monotonic() - began < 10
    assert (run.state, run.result, run.attempts) == ("completed", 3, 3)
    assert all(a <= b <= a * 1.25 for a, b in zip((10, 3600), run.delays_s, strict=True))


def test_attempts_bound_the_run(registry: Registry) -> None:
    """The job is then left as it is between two attempts."""

    @job("hopeless", max_attempts=3, registry=registry)
    async def hopeless(ctx: JobContext) -> None:
        raise ValueError("no")

    run = run_job(hopeless, attempts=1)
    assert (run.state, run.attempts) == ("retrying", 1)
    run = run_job(hopeless)
    assert (run.state, run.attempts) == ("failed", 3)
    assert run.error == {"code": "exception", "type": "ValueError", "message": "no"}
    assert run.events[-1]["data"]["dead"] is True
    assert "ValueError" in repr(run)


def test_real_time_is_waited_for(registry: Registry) -> None:
    """``time="real"`` sleeps through the delays."""

    @job("later", max_attempts=2, registry=registry)
    async def later(ctx: JobContext) -> None:
        if ctx.attempt == 1:
            raise Retry(delay_s=0.05)

    began = time.monotonic()
    assert run_job(later, time="real").state == "completed"
    assert time.monotonic() - began >= 0.05


def test_fail_and_retry_steer_the_outcome(registry: Registry) -> None:
    """As they do in a worker."""

    @job("steered", max_attempts=5, registry=registry)
    def steered(ctx: SyncJobContext) -> None:
        if ctx.attempt == 1:
            raise Retry(delay_s=7)
        raise Fail("closed", "come back tomorrow")

    run = run_job(steered)
    assert (run.state, run.attempts, run.delays_s) == ("failed", 2, [7.0])
    assert run.error == {"code": "closed", "type": "Fail", "message": "come back tomorrow"}


def test_input_is_validated_as_at_submission(registry: Registry) -> None:
    """The error names the field, and nothing runs."""

    @job("typed", registry=registry)
    async def typed(ctx: JobContext, input: Rows) -> None:
        raise AssertionError("not reached")

    with pytest.raises(InvalidInput, match=r"input\.rows"):
        run_job(typed, {"rows": "many"})
    with pytest.raises(InvalidInput, match="no queue"):
        run_job(typed, {"rows": 1}, queue="nowhere")


def watched(registry: Registry, *, is_async: bool) -> tuple[Any, list[str]]:
    """Make a job of four outputs, and the list of what it was told to stop for."""
    told: list[str] = []

    if is_async:

        @job("watched", registry=registry)
        async def watched_async(ctx: JobContext) -> int:
            try:
                for number in range(4):
                    await ctx.output(number)
            except JobStopped as error:
                told.append(type(error).__name__)
                raise
            return ctx.attempt

        return watched_async, told

    @job("watched", registry=registry)
    def watched_plain(ctx: SyncJobContext) -> int:
        try:
            for number in range(4):
                ctx.output(number)
        except JobStopped as error:
            told.append(type(error).__name__)
            raise
        return ctx.attempt

    return watched_plain, told


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
@pytest.mark.parametrize(
    ("argument", "error", "kinds", "attempts"),
    [
        ("cancel_at", "JobCancelled", ["cancelling", "cancelled"], 1),
        ("time_out_at", "JobTimedOut", ["retrying", "queued", "started", *["output"] * 4, "completed"], 2),
        ("hand_back_at", "JobHandedBack", ["queued", "started", *["output"] * 4, "completed"], 2),
        ("lose_at", "JobLost", ["retrying", "queued", "started", *["output"] * 4, "completed"], 2),
    ],
)
def test_a_job_is_stopped_where_the_test_says(
    registry: Registry, is_async: bool, argument: str, error: str, kinds: list[str], attempts: int
) -> None:
    """After the second event that it sends: it is told why, and its log goes on as it would."""
    job_type, told = watched(registry, is_async=is_async)
    run = run_job(job_type, **{argument: 2})
    assert told == [error]
    assert run.kinds == ["queued", "started", "output", "output", *kinds]
    assert run.attempts == attempts
    assert run.record.tries == (1 if argument in ("time_out_at", "lose_at") else 0)


def test_moments_are_numbers_kinds_or_functions(registry: Registry) -> None:
    """Before it is begun, before it is called, at a kind, and where an event is as wanted."""
    job_type, _ = watched(registry, is_async=True)
    assert run_job(job_type, cancel_at="queued").kinds == ["queued", "cancelled"]
    assert run_job(job_type, cancel_at=0).outputs == []
    assert run_job(job_type, cancel_at="output").outputs == [0]
    assert run_job(job_type, cancel_at=lambda event: event["data"].get("chunk") == 2).outputs == [0, 1, 2]


def test_a_moment_that_never_comes_is_an_error(registry: Registry) -> None:
    """Else the test would pass without having tested."""
    job_type, _ = watched(registry, is_async=True)
    with pytest.raises(ValueError, match="cancel_at never came"):
        run_job(job_type, cancel_at=5)
    jobs = InMemoryJobs(registry)
    with pytest.raises(TypeError, match="cancel_at, time_out_at"):
        jobs.run(jobs.submit(job_type), pause_at=5)


def test_a_shutdown_is_seen_before_it_is_over(registry: Registry) -> None:
    """``shut_down_at`` tells the function, which may end early."""

    @job("polite", registry=registry)
    async def polite(ctx: JobContext) -> int:
        done = 0
        while not ctx.shutting_down:
            done += 1
            await ctx.output(done)
        return done

    assert run_job(polite, shut_down_at=3).result == 3


def test_an_async_job_is_stopped_at_its_timeout(registry: Registry) -> None:
    """The limit of the type holds, as in a worker."""

    @job("slow", timeout_s=0.05, max_attempts=1, registry=registry)
    async def slow(ctx: JobContext) -> None:
        await asyncio.Event().wait()

    run = run_job(slow)
    assert run.error is not None
    assert (run.state, run.error["code"]) == ("failed", "timeout")


def test_cancelled_job_may_clean_up(registry: Registry) -> None:
    """It may still use its context."""

    @job("tidy", registry=registry)
    async def tidy(ctx: JobContext) -> None:
        try:
            await ctx.output(1)
        except JobCancelled:
            await ctx.log("info", "tidying")
            raise

    assert run_job(tidy, cancel_at=1).kinds == [
        "queued",
        "started",
        "output",
        "cancelling",
        "log",
        "cancelled",
    ]


@job("test.testing.child")
async def child(ctx: JobContext, input: Rows) -> int:
    return input.rows


@job("test.testing.parent")
async def parent(ctx: JobContext, input: Rows) -> list[str]:
    one = child.submit({"rows": 0}, owner=ctx.owner)
    return [one, *await child.submit_many_async([Rows(rows=n) for n in (1, 2)], owner=ctx.owner)]


def test_what_a_job_submits_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits, is of the owner that the job said, and the process's own store is left alone."""
    monkeypatch.setattr(connection, "_default", None)
    run = run_job(parent, {"rows": 2}, owner="alice")
    assert [(found.id, found.input, found.state) for found in run.submitted] == [
        (job_id, {"rows": number}, "queued") for number, job_id in enumerate(run.result)
    ]
    assert {found.record.spec.owner for found in run.submitted} == {"alice"}
    assert (connection._default, connection._substitutes) == (None, [])


async def test_on_the_tests_own_loop() -> None:
    """What belongs to the test's loop can be used in the job."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    registry = Registry()

    @job("mine", registry=registry)
    async def mine(ctx: JobContext) -> int:
        assert asyncio.get_running_loop() is loop
        return await queue.get()

    @job("threaded", registry=registry)
    def threaded(ctx: SyncJobContext) -> str:
        ctx.output(1)
        return threading.current_thread().name

    loop = asyncio.get_running_loop()
    running = asyncio.create_task(run_job_async(mine))
    await queue.put(7)
    assert (await running).result == 7
    run = await run_job_async(threaded, cancel_at="queued")
    assert run.state == "cancelled"
    assert (await run_job_async(threaded)).result != threading.current_thread().name


async def test_jobs_that_run_at_once_are_kept_apart() -> None:
    """Each catches what it submits itself, in whatever order they end."""
    runs = await asyncio.gather(*(run_job_async(parent, {"rows": n}, owner=f"o{n}") for n in range(3)))
    assert [[found.record.spec.owner for found in run.submitted] for run in runs] == [
        [f"o{n}"] * 3 for n in range(3)
    ]
    assert connection._substitutes == []


async def test_plain_code_runs_jobs_under_a_running_loop_too(registry: Registry) -> None:
    """On a loop of their own."""
    job_type, told = watched(registry, is_async=True)
    assert run_job(job_type, hand_back_at=1).result == 2
    assert told == ["JobHandedBack"]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> TidingsBroker:
    monkeypatch.setattr(dramatiq.broker, "global_broker", None)
    broker = TidingsBroker()
    dramatiq.set_broker(broker)
    return broker


@pytest.mark.usefixtures("broker")
def test_plain_actors_run_too() -> None:
    """With the context of the job, their own retries, and what they send caught."""

    @dramatiq.actor
    def after(path: str) -> None: ...

    @dramatiq.actor(max_retries=1, min_backoff=5_000)
    def resize(path: str, *, width: int) -> str:
        context = current_job()
        assert isinstance(context, SyncJobContext)
        context.progress(50, path)
        if context.attempt == 1:
            raise OSError("disk full")
        after.send(path)
        return f"{path} {width} {context.owner}"

    @dramatiq.actor
    async def fetch() -> int:
        context = current_job()
        assert isinstance(context, JobContext)
        await context.output("x")
        return 5

    run: JobRun = run_job(resize, {"args": ["a.png"], "kwargs": {"width": 3}}, owner="alice")
    assert (run.result, run.attempts) == ("a.png 3 alice", 2)
    assert run.progress is not None
    assert run.progress["message"] == "a.png"
    assert [found.type for found in run.submitted] == ["after"]
    assert run_job(fetch).outputs == ["x"]
    assert run_job(fetch).result == 5


def test_an_actor_of_another_broker_is_refused() -> None:
    """The error says what to do."""
    from dramatiq.brokers.stub import StubBroker

    @dramatiq.actor(broker=StubBroker())
    def elsewhere() -> None: ...

    with pytest.raises(TypeError, match="set_broker"):
        run_job(elsewhere)
