"""What a running job sends: events, streams, logs, files; and what is refused at the call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.running import Jobs, open_jobs, running_worker
from tests.support.timing import scaled
from tidings.protocol import JobState
from tidings_tasks import JobContext, SyncJobContext, current_job, job
from tidings_tasks.event_data import InvalidEvent
from tidings_tasks.files import FileStore
from tidings_tasks.registry import Registry
from tidings_tasks.store import Keyspace

MAX_EVENT_BYTES = 2048


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def jobs(
    valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> AsyncIterator[Jobs]:
    async with (
        open_jobs(valkey_url, keyspace, registry) as found,
        running_worker(valkey_url, keyspace, registry, tmp_path, max_event_bytes=MAX_EVENT_BYTES),
    ):
        yield found


async def test_flush_returns_when_the_store_has_everything(jobs: Jobs, registry: Registry) -> None:
    """What was sent before a ``flush`` is in the log when it returns, numbered in the order it was sent."""
    seen: list[list[Any]] = []

    @job("flushing", registry=registry)
    async def flushing(ctx: JobContext) -> None:
        for n in range(300):
            await ctx.output(n)
        await ctx.flush()
        seen.append([e["data"]["chunk"] for e in await jobs.events(ctx.job_id, "output")])

    await jobs.until(await jobs.submit(flushing))
    assert seen == [list(range(300))]


async def test_event_is_sent_at_once_while_the_job_goes_on(jobs: Jobs, registry: Registry) -> None:
    """Nobody has to flush: a watcher sees an event while the function waits for something else."""
    release = asyncio.Event()

    @job("waiting", registry=registry)
    async def waiting(ctx: JobContext) -> None:
        await ctx.output("now")
        await release.wait()

    job_id = await jobs.submit(waiting)
    await jobs.until_kind(job_id, "output", timeout_s=3)
    release.set()
    await jobs.until(job_id)


async def test_stream_joins_small_texts(jobs: Jobs, registry: Registry) -> None:
    """Texts become few events, in order and whole; a stream that is left open is sent with the outcome."""

    @job("tokens", registry=registry)
    async def tokens(ctx: JobContext) -> None:
        stream = ctx.stream("answer")
        for n in range(200):
            await stream.write(f"{n} ")

    @job("tokens.sync", registry=registry)
    def tokens_sync(ctx: SyncJobContext) -> None:
        stream = ctx.stream("answer")
        for n in range(200):
            stream.write(f"{n} ")

    for job_type in (tokens, tokens_sync):
        job_id = await jobs.submit(job_type)
        await jobs.until(job_id)
        outputs = await jobs.events(job_id, "output")
        assert "".join(e["data"]["chunk"] for e in outputs) == "".join(f"{n} " for n in range(200))
        assert {e["data"]["stream"] for e in outputs} == {"answer"}
        assert len(outputs) < 100


async def test_pending_text_of_a_stream_is_sent_within_a_moment(jobs: Jobs, registry: Registry) -> None:
    """The last token is not kept back until something else happens."""
    release = asyncio.Event()

    @job("typing", registry=registry)
    async def typing(ctx: JobContext) -> None:
        await ctx.stream("answer").write("so")
        await release.wait()

    job_id = await jobs.submit(typing)
    await jobs.until_kind(job_id, "output", timeout_s=3)
    release.set()
    await jobs.until(job_id)


async def test_bad_event_is_an_error_at_its_call(jobs: Jobs, registry: Registry) -> None:
    """Too large, no JSON, out of range: the function learns it where it stands, and nothing is sent."""
    errors: list[str] = []

    @job("careless", registry=registry)
    async def careless(ctx: JobContext) -> None:
        for call in (
            lambda: ctx.output("x" * (MAX_EVENT_BYTES + 1)),
            lambda: ctx.output(object()),
            lambda: ctx.progress(101),
            lambda: ctx.progress(float("nan")),
            lambda: ctx.progress(True),
            lambda: ctx.log("loud", "hello"),
            lambda: ctx.log("info", "hello", thing=object()),
            lambda: ctx.progress(meta=["no", "object"]),  # type: ignore[arg-type]  # that is what is tested
        ):
            try:
                await call()
            except InvalidEvent as error:
                errors.append(error.errors[0].code)
        await ctx.progress(1)

    job_id = await jobs.submit(careless)
    assert (await jobs.until(job_id)).state is JobState.COMPLETED
    assert errors == [
        "too_large", "not_json", "out_of_range", "out_of_range", "not_a_number", "unknown_level", "not_json", "not_an_object",
    ]  # fmt: skip
    assert await jobs.kinds(job_id) == ["queued", "started", "progress", "completed"]


async def test_logging_inside_a_job_reaches_its_log(jobs: Jobs, registry: Registry) -> None:
    """Records of INFO and above, from the function, its threads and its tasks; cut to the bound of an event."""
    logger = logging.getLogger("shop.orders")

    @job("logging", registry=registry)
    async def log_async(ctx: JobContext) -> None:
        logger.debug("not this")
        logger.info("order %d", 7, extra={"customer": 12, "odd": object()})
        await asyncio.to_thread(logger.warning, "from a thread")
        try:
            raise KeyError("lost")
        except KeyError:
            logger.exception("it went wrong")
        logger.info("x" * 10_000)

    @job("logging.sync", registry=registry)
    def log_sync(ctx: SyncJobContext) -> None:
        logger.error("from a plain function")

    first, second = await jobs.submit(log_async), await jobs.submit(log_sync)
    await jobs.until(first)
    await jobs.until(second)
    data = [e["data"] for e in await jobs.events(first, "log")]
    assert data[0] == {
        "level": "info", "message": "order 7", "fields": {"logger": "shop.orders", "customer": 12},
    }  # fmt: skip
    assert (data[1]["level"], data[1]["message"]) == ("warning", "from a thread")
    assert data[2]["fields"]["exception"] == "KeyError: 'lost'"
    assert "Traceback" not in str(data[2])
    assert data[3]["message"].startswith("xxx")
    assert data[3]["message"].endswith("…")
    assert len(data) == 4
    assert [e["data"]["message"] for e in await jobs.events(second, "log")] == ["from a plain function"]


async def test_logging_outside_of_jobs_stays_out(jobs: Jobs, registry: Registry) -> None:
    """Two jobs at once don't get each other's records, and neither gets the program's."""
    both = asyncio.Barrier(2)

    @job("one.of.two", registry=registry)
    async def one(ctx: JobContext) -> None:
        async with asyncio.timeout(scaled(10)):
            await both.wait()
        logging.getLogger("two").warning("I am %s", ctx.job_id)

    ids = [await jobs.submit(one), await jobs.submit(one)]
    logging.getLogger("program").warning("outside")
    for job_id in ids:
        await jobs.until(job_id)
        assert [e["data"]["message"] for e in await jobs.events(job_id, "log")] == [f"I am {job_id}"]


async def test_context_knows_its_job(jobs: Jobs, registry: Registry) -> None:
    """Id, owner, organisation, attempt, metadata; ``current_job`` is the same one, also in a thread."""

    @job("knows", registry=registry)
    async def knows(ctx: JobContext) -> list[Any]:
        assert current_job() is ctx
        assert await asyncio.to_thread(current_job) is ctx
        ctx.metadata["changed"] = True
        return [ctx.job_id, ctx.owner, ctx.org, ctx.attempt, ctx.metadata, ctx.cancelled, ctx.shutting_down]

    job_id = await jobs.submit(knows, metadata={"order": 7})
    record = await jobs.until(job_id)
    assert record.result == f'["{job_id}","alice","acme",1,{{"order":7}},false,false]'.encode()
    with pytest.raises(LookupError, match="no job runs here"):
        current_job()


async def test_saved_file_belongs_to_the_jobs_owner(jobs: Jobs, registry: Registry, tmp_path: Path) -> None:
    """``save_file`` keeps the bytes and gives their description for the result."""

    @job("writes", registry=registry)
    async def writes(ctx: JobContext) -> dict[str, Any]:
        return await ctx.save_file("report.txt", b"hello", "text/plain")

    @job("writes.sync", registry=registry)
    def writes_sync(ctx: SyncJobContext) -> dict[str, Any]:
        return ctx.save_file("report.txt", b"hello", "text/plain")

    import orjson

    files = FileStore(tmp_path / "files", max_file_bytes=1024)
    for job_type in (writes, writes_sync):
        record = await jobs.until(await jobs.submit(job_type))
        assert record.result is not None
        stored = files.find(orjson.loads(record.result)["id"])
        assert stored is not None
        assert (stored.owner, stored.org, stored.path.read_bytes()) == ("alice", "acme", b"hello")


async def test_track_reports_every_item_of_a_short_loop(jobs: Jobs, registry: Registry) -> None:
    """``async for`` over a plain iterable, an asynchronous one, and one of unknown length."""

    async def letters() -> AsyncIterator[str]:
        for letter in "abc":
            yield letter

    @job("tracks", registry=registry)
    async def tracks(ctx: JobContext) -> list[Any]:
        found: list[Any] = [n async for n in ctx.track(range(3), message="numbers")]
        await ctx.output("then")
        found += [letter async for letter in ctx.track(letters(), message=None)]
        return found

    job_id = await jobs.submit(tracks)
    record = await jobs.until(job_id)
    assert record.result == b'[0,1,2,"a","b","c"]'
    first, second = await jobs.events(job_id, "progress")
    assert first["data"]["message"] == "numbers"
    assert (first["data"]["current"], first["data"]["total"], first["data"]["percent"]) == (3, 3, 100)
    # The log folds progress events that follow one another: four were sent, 0 to 3.
    assert first["seq"] - first["prev"] == 4
    assert (second["data"]["current"], second["data"]["total"], second["data"]["message"]) == (3, 3, None)
