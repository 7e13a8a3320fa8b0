"""The client's calls over a real connection: typed answers and errors, retries that are safe, files, sync face."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import BaseModel

from tests.integration.sdk_double import GOOD_TOKEN, IMPATIENT, Double, answer_problem, running
from tests.support.timing import scaled
from tidings import Client, Event, JobState, SyncClient, errors
from tidings.loop_thread import LoopThread


class Steps(BaseModel):
    """An input."""

    steps: int


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    """Give a running double."""
    async with running() as server:
        yield server


@pytest.fixture
async def client(double: Double) -> AsyncIterator[Client]:
    """Give a client of the double that tries again quickly."""
    async with Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        yield client


async def test_submit_sends_what_was_given_and_nothing_else(double: Double, client: Client) -> None:
    """Models and dicts alike; defaults are left to the server."""
    job = await client.submit("demo.steps", Steps(steps=3), tags=["a"], priority=2)
    assert job.input == {"steps": 3}
    await client.submit("demo.steps")
    assert double.bodies == [
        {"type": "demo.steps", "input": {"steps": 3}, "tags": ["a"], "priority": 2},
        {"type": "demo.steps"},
    ]


async def test_a_submit_whose_answer_is_lost_makes_one_job(double: Double, client: Client) -> None:
    """The repetition goes under the same Idempotency-Key."""
    double.faults.extend([web.Response(status=502), web.Response(status=503)])
    await client.submit("demo.steps", {"steps": 1})
    keys = [headers["Idempotency-Key"] for headers in double.headers]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    await client.submit("demo.steps", {"steps": 1})
    assert len(double.jobs) == 2
    await client.submit("demo.steps", idempotency_key="mine")
    assert double.headers[-1]["Idempotency-Key"] == "mine"


async def test_faults_of_a_submission_are_typed_and_name_the_field(double: Double, client: Client) -> None:
    """Those that the server finds and those that need no server."""
    with pytest.raises(errors.InvalidInput) as caught:
        await client.submit("demo.invalid", {})
    assert [(fault.field, fault.message) for fault in caught.value.errors] == [
        ("input.steps", "Field required")
    ]
    assert caught.value.request_id == "r1"
    asked = len(double.requests)
    with pytest.raises(errors.InvalidInput, match="priority"):
        await client.submit("demo.steps", priority=11)
    with pytest.raises(errors.InvalidInput, match="type"):
        await client.submit("no spaces", {})
    assert len(double.requests) == asked


async def test_a_call_that_may_have_been_carried_out_is_not_repeated(double: Double, client: Client) -> None:
    """Only GET, a submit under its key, and what the server surely did not do."""
    job = double.add()
    double.faults.append(answer_problem({"code": "store_unavailable", "status": 503}))
    with pytest.raises(errors.StoreUnavailable):
        await client.cancel(job.id)
    double.faults.append(answer_problem({"code": "rate_limited", "status": 429}))
    assert (await client.cancel(job.id)).status is JobState.CANCELLED


async def test_retry_after_is_kept(double: Double, client: Client) -> None:
    """A short one is waited for, a long one is the caller's."""
    double.faults.append(answer_problem({"code": "rate_limited", "status": 429}, Retry_After="1"))
    began = time.monotonic()
    await client.stats()
    assert time.monotonic() - began >= 1
    double.faults.append(answer_problem({"code": "rate_limited", "status": 429}, Retry_After="3600"))
    with pytest.raises(errors.RateLimited) as caught:
        await client.stats()
    assert caught.value.retry_after_s == 3600


async def test_retries_end(double: Double, client: Client) -> None:
    """After the given number, with the last error."""
    double.faults.extend(web.Response(status=502) for _ in range(10))
    with pytest.raises(errors.ConnectionLost, match="502"):
        await client.stats()
    assert len(double.faults) == 6


async def test_an_unreachable_server_is_connection_lost(double: Double, client: Client) -> None:
    """With the address, in a sentence."""
    await double.stop()
    with pytest.raises(
        errors.ConnectionLost, match=rf"can't reach http://127.0.0.1:{double.port}/: Connection refused"
    ):
        await client.stats()


async def test_another_web_server_is_recognised(double: Double, client: Client) -> None:
    """A wrong URL is said to be one, whether it answers well or ill."""
    double.faults.append(web.Response(text="<html>", content_type="text/html"))
    with pytest.raises(errors.InternalError, match="is this the URL of a Tidings server"):
        await client.stats()
    double.faults.append(web.Response(status=404, text="<html>"))
    with pytest.raises(errors.InternalError, match="is this the URL of a Tidings server"):
        await client.stats()
    double.faults.append(web.json_response({"mode": 1}))
    with pytest.raises(errors.InternalError, match="no JobStats: mode"):
        await client.stats()


async def test_a_problem_of_a_newer_server_falls_back_to_its_status(double: Double, client: Client) -> None:
    """And ill-typed members do no harm."""
    double.faults.append(answer_problem({"code": "brand_new", "status": 409, "errors": [{"field": "x"}]}))
    with pytest.raises(errors.IllegalState):
        await client.stats()
    double.faults.append(answer_problem({"code": "brand_new", "status": 409, "errors": [{"field": 7}]}))
    with pytest.raises(errors.IllegalState):
        await client.stats()


async def test_status_waits_for_a_change_since_a_known_answer(double: Double, client: Client) -> None:
    """And gives the known one back when there was none."""
    job = double.add()
    known = await client.status(job.id)
    assert await client.status(job.id, known=known) is known
    waiting = asyncio.create_task(client.status(job.id, wait_s=5, known=known))
    await asyncio.sleep(0)
    double.append(job, "started")
    async with asyncio.timeout(scaled(3)):
        assert (await waiting).status is JobState.RUNNING


async def test_jobs_iterates_over_all_pages(double: Double, client: Client) -> None:
    """Newest first, each once, to the limit."""
    made = sorted((double.add().id for _ in range(250)), reverse=True)
    assert [job.id async for job in client.jobs()] == made
    assert [job.id async for job in client.jobs(limit=120)] == made[:120]
    assert [job.id async for job in client.jobs(limit=0)] == []
    assert [job.id async for job in client.jobs(status="failed")] == []
    page = await client.jobs_page(limit=10)
    assert ([job.id for job in page.jobs], page.next_cursor) == (made[:10], "10")


async def test_jobs_are_cancelled_retried_and_deleted(double: Double, client: Client) -> None:
    """What the state forbids is a typed error."""
    job = double.add()
    with pytest.raises(errors.IllegalState):
        await client.retry(job.id)
    with pytest.raises(errors.IllegalState):
        await client.delete(job.id)
    assert (await client.cancel(job.id, reason="no need")).status is JobState.CANCELLED
    assert job.log[-1]["data"]["reason"] == "no need"
    with pytest.raises(errors.IllegalState):
        await client.cancel(job.id)
    assert (await client.retry(job.id)).retry_of == job.id
    await client.delete(job.id)
    with pytest.raises(errors.JobNotFound):
        await client.get(job.id)


async def test_result_waits_for_the_end(double: Double, client: Client) -> None:
    """And is the result alone."""
    job = double.add()
    waiting = asyncio.create_task(client.result(job.id))
    await double.subscribed.get()
    double.append(job, "completed", {"result": [1, 2]})
    assert await waiting == [1, 2]
    assert await client.result(job.id) == [1, 2]


async def test_a_large_result_is_fetched(double: Double, client: Client) -> None:
    """The terminal event only refers to it."""
    job = double.add()
    waiting = asyncio.create_task(client.result(job.id))
    await double.subscribed.get()
    job.result_ref = f"/api/jobs/{job.id}/result"
    double.append(job, "completed", {"result_ref": job.result_ref})
    assert await waiting == {"large": job.id}
    assert await client.result(job.id) == {"large": job.id}


async def test_result_raises_what_became_of_the_job(double: Double, client: Client) -> None:
    """Failed, cancelled, or not in time."""
    failed, cancelled, slow = double.add(), double.add(), double.add()
    waiting = asyncio.create_task(client.result(failed.id))
    await double.subscribed.get()
    double.append(failed, "failed", {"error": {"code": "boom", "type": "Boom", "message": "no"}})
    with pytest.raises(errors.JobFailed, match="boom: no") as caught:
        await waiting
    assert caught.value.error["type"] == "Boom"
    with pytest.raises(errors.JobFailed, match="boom: no"):
        await client.result(failed.id)
    await client.cancel(cancelled.id)
    with pytest.raises(errors.JobWasCancelled):
        await client.result(cancelled.id)
    with pytest.raises(TimeoutError, match=f"job {slow.id} has not ended within 0.05 s; it goes on"):
        await client.result(slow.id, timeout_s=0.05)


async def test_files_go_up_and_come_down(double: Double, client: Client, tmp_path: Path) -> None:
    """From memory and from disk."""
    source = tmp_path / "table.csv"
    source.write_bytes(b"a,b\n" * 500_000)
    info = await client.upload(source)
    assert (info.name, info.media_type, info.size_bytes) == ("table.csv", "text/csv", 2_000_000)
    assert (await client.upload(b"xyz", name="n.bin")).media_type == "application/octet-stream"
    assert double.bodies[-1] == b"xyz"
    assert await client.download("F1") == b"F1" * 1000
    target = await client.download_to("F1", tmp_path / "out.bin")
    assert target.read_bytes() == b"F1" * 1000
    with pytest.raises(errors.PayloadTooLarge):
        await client.download("F1", max_bytes=10)
    with pytest.raises(errors.FileMissing):
        await client.download("../jobs")
    double.block.add("rest")
    with pytest.raises(errors.InternalError):
        await client.download_to("F1", tmp_path / "none.bin")
    assert sorted(os.listdir(tmp_path)) == ["out.bin", "table.csv"]


async def test_an_upload_refused_for_its_token_is_sent_whole_with_the_next(double: Double) -> None:
    """The form is made anew."""
    tokens = iter(["stale", GOOD_TOKEN])
    double.expired.add("stale")
    async with Client(double.url, lambda: next(tokens)) as client:
        await client.upload(b"content")
    assert double.bodies == [b"content"]


async def test_a_prefix_in_the_url_is_kept(double: Double) -> None:
    """For a server behind a path."""
    async with Client(f"{double.url}/tidings/", GOOD_TOKEN, retries=0) as client:
        with pytest.raises(errors.InternalError):
            await client.stats()
    assert double.requests[-1] == ("GET", "/tidings/api/jobs/stats")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://x", "http://"])
def test_what_is_no_url_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match="URL"):
        Client(url, GOOD_TOKEN)


@pytest.mark.parametrize("token", ["", "a b", "a\n", "é"])
def test_what_can_not_be_a_token_is_refused_without_showing_it(token: str) -> None:
    """It may be a secret with a slip."""
    with pytest.raises(ValueError, match="a token is a non-empty string"):
        Client("http://x", token)


@pytest.fixture
def double_url() -> Iterator[tuple[Double, str, LoopThread]]:
    """Run a double on a thread of its own, for clients that block."""
    thread = LoopThread("double")
    double = Double()
    thread.run(double.start())
    yield double, double.url, thread
    thread.run(double.stop())
    thread.close()


async def _do(act: object) -> None:
    assert callable(act)
    act()


def test_the_sync_client_does_all_that_the_asynchronous_one_does(
    double_url: tuple[Double, str, LoopThread], tmp_path: Path
) -> None:
    """Call by call."""
    double, url, thread = double_url
    with SyncClient(url, lambda: GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        job = client.submit("demo.steps", {"steps": 1})
        assert client.get(job.id).id == job.id
        assert client.status(job.id).status is JobState.QUEUED
        assert [found.id for found in client.jobs()] == [job.id]
        assert client.jobs_page().next_cursor is None
        assert client.stats().total == 1
        thread.run(_do(lambda: double.append(double.jobs[job.id], "completed", {"result": 7})))
        assert client.result(job.id) == 7
        assert [item.seq for item in client.watch(job.id) if isinstance(item, Event)] == [1, 2]
        client.delete(job.id)
        with pytest.raises(errors.JobNotFound):
            client.get(job.id)
        other = client.submit("demo.steps")
        assert client.cancel(other.id).status is JobState.CANCELLED
        assert client.retry(other.id).retry_of == other.id
        assert client.upload(b"x").size_bytes == 1
        assert client.download("F1")
        assert client.download_to("F1", tmp_path / "f").exists()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.stats()
    assert "tidings-client" not in {thread.name for thread in threading.enumerate()}


def test_a_sync_watch_follows_live_and_can_be_left(double_url: tuple[Double, str, LoopThread]) -> None:
    """From several threads at once, on one client."""
    double, url, thread = double_url
    with SyncClient(url, GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        jobs = [client.submit("demo.steps").id for _ in range(4)]

        def follow(job_id: str) -> list[int]:
            return [item.seq for item in client.watch(job_id) if isinstance(item, Event)]

        with ThreadPoolExecutor(4) as pool:
            ends = [pool.submit(follow, job_id) for job_id in jobs]
            for job_id in jobs:
                thread.run(_do(lambda job_id=job_id: double.append(double.jobs[job_id], "completed")))
            assert [end.result(scaled(10)) for end in ends] == [[1, 2]] * 4
        left = client.submit("demo.steps").id
        with client.watch(left, None) as watch:
            assert next(watch).job.id == left  # type: ignore[union-attr]  # the first item is the snapshot
            assert watch.position == "e1:1"


def test_the_sync_client_refuses_to_wait_for_itself(double_url: tuple[Double, str, LoopThread]) -> None:
    """A callback that calls the client would hang for ever."""
    _, url, _ = double_url
    seen: list[str] = []

    def token() -> str:
        try:
            client.stats()
        except RuntimeError as error:
            seen.append(str(error))
        return GOOD_TOKEN

    with SyncClient(url, token) as client:
        client.stats()
    assert seen == ["called from the client's own event loop"]
