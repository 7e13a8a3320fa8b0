"""The SDK and its commands against the real stack, with a proxy in between that cuts what it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.stack import LiveStack
from tests.support.timing import scaled
from tidings import Backoff, Client, Event, JobState, SyncClient, Watch, WatchPolicy, errors

QUICK = WatchPolicy(
    failures_before_descent=2, stable_after_s=0.5, probe_every_s=0.3, backoff=Backoff(base_s=0.02, cap_s=0.2)
)
SOCKET, STREAM = re.compile(rb"GET /socket\.io"), re.compile(rb"text/event-stream")


class Proxy:
    """Passes bytes on between clients and a port; cuts all connections, or those that ask for something."""

    def __init__(self, target: int) -> None:
        self.blocked: list[re.Pattern[bytes]] = []
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        finally:
            self._writers -= pair
            for end in pair:
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65_536):
                if any(pattern.search(chunk) for pattern in self.blocked):
                    break
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        writer.transport.abort()


@pytest.fixture
async def proxy(live_stack: LiveStack) -> AsyncIterator[Proxy]:
    """Give a proxy before the real server."""
    async with Proxy(int(live_stack.url.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
async def client(live_stack: LiveStack, proxy: Proxy) -> AsyncIterator[Client]:
    """Give a client behind the proxy."""
    async with Client(proxy.url, live_stack.token(), watch_policy=QUICK) as client:
        yield client


async def take_all(watch: Watch) -> list[Event]:
    """Take the whole log."""
    events = []
    async with asyncio.timeout(scaled(60)):
        async for item in watch:
            assert isinstance(item, Event)
            events.append(item)
    return events


def assert_whole(events: list[Event]) -> None:
    """The intervals (prev or seq-1, seq] cover the log exactly, and it ends."""
    at = 0
    for event in events:
        assert (event.seq - 1 if event.prev is None else event.prev) <= at < event.seq
        at = event.seq
    assert events[-1].is_terminal
    lossless = [event for event in events if event.kind == "output"]
    assert len({event.seq for event in lossless}) == len(lossless)


@pytest.mark.parametrize(
    ("blocked", "transport"),
    [([], "socket.io"), ([SOCKET], "sse"), ([SOCKET, STREAM], "long-poll")],
    ids=["socket.io", "sse", "long-poll"],
)
async def test_a_real_job_arrives_whole_through_cuts(
    proxy: Proxy, client: Client, blocked: list[re.Pattern[bytes]], transport: str
) -> None:
    """All connections are cut again and again while it runs; outputs are counted one by one."""
    proxy.blocked = blocked
    job = await client.submit("demo.steps", {"steps": 150, "delay_ms": 10, "output_every": 3})
    watch = client.watch(job.id)
    events: list[Event] = []
    cuts = 0
    async with asyncio.timeout(scaled(60)):
        async for item in watch:
            assert isinstance(item, Event)
            events.append(item)
            if len(events) % 15 == 0 and cuts < 10:
                cuts += 1
                proxy.cut()
    assert cuts >= 3  # 53 events are never folded, so there are at least 53 // 15
    assert_whole(events)
    assert sum(event.kind == "output" for event in events) == 50
    assert events[-1].data["result"] == {"steps": 150, "attempt": 1}
    assert watch.transport == transport or transport == "socket.io"


async def test_the_ladder_is_climbed_down_and_up_on_the_real_server(proxy: Proxy, client: Client) -> None:
    """While one job goes on."""
    job = await client.submit("demo.steps", {"steps": 400, "delay_ms": 10, "output_every": 10})
    watch = client.watch(job.id)
    events: list[Event] = []
    wanted = iter([("long-poll", [SOCKET, STREAM]), ("sse", [SOCKET]), ("socket.io", [])])
    transport, seen = "socket.io", []
    async with asyncio.timeout(scaled(60)):
        async for item in watch:
            assert isinstance(item, Event)
            events.append(item)
            if watch.transport == transport and (step := next(wanted, None)) is not None:
                seen.append(transport)
                transport, proxy.blocked = step
                if transport == "long-poll":
                    proxy.cut()
    assert seen == ["socket.io", "long-poll", "sse"]
    assert watch.transport == "socket.io"
    assert_whole(events)
    assert sum(event.kind == "output" for event in events) == 40


async def test_a_watch_survives_the_death_of_the_server(live_stack: LiveStack) -> None:
    """Killed and started again on its port, while the job runs on."""
    async with Client(live_stack.url, live_stack.token(), watch_policy=QUICK) as client:
        job = await client.submit("demo.steps", {"steps": 300, "delay_ms": 15, "output_every": 5})
        watch = client.watch(job.id)
        first = await anext(watch)
        assert isinstance(first, Event)
        restarted = asyncio.create_task(asyncio.to_thread(live_stack.restart_server))
        events = [first, *await take_all(watch)]
        await restarted
        assert_whole(events)
        assert sum(event.kind == "output" for event in events) == 60


async def test_short_lived_tokens_are_renewed_on_the_live_connection(live_stack: LiveStack) -> None:
    """A job outlives several of them."""
    given: list[str] = []

    def token() -> str:
        given.append(live_stack.token(ttl_s=2))
        return given[-1]

    states: list[str] = []
    async with Client(live_stack.url, token, watch_policy=QUICK) as client:
        job = await client.submit("demo.steps", {"steps": 100, "delay_ms": 40})
        assert_whole(await take_all(client.watch(job.id, on_connection=states.append)))
    assert 3 <= len(given) < 20
    assert states == ["live"]


async def test_a_token_that_is_not_renewed_ends_the_watch(live_stack: LiveStack) -> None:
    """With the reason, and no completion."""
    async with Client(live_stack.url, live_stack.token(ttl_s=1), watch_policy=QUICK) as client:
        job = await client.submit("demo.steps", {"steps": 100, "delay_ms": 40})
        with pytest.raises(errors.TokenExpired):
            await take_all(client.watch(job.id))


async def test_each_call_of_the_client_is_understood(
    live_stack: LiveStack, client: Client, tmp_path: Path
) -> None:
    """By the server that is meant."""
    job = await client.submit("demo.steps", {"steps": 2}, tags=["sdk-real"], metadata={"a": 1}, delay_s=3600)
    assert job.status is JobState.SCHEDULED
    assert (await client.get(job.id)).metadata == {"a": 1}
    assert [found.id async for found in client.jobs(tag="sdk-real", status="scheduled", limit=1)] == [job.id]
    known = await client.status(job.id)
    assert await client.status(job.id, known=known) is known
    waiting = asyncio.create_task(client.status(job.id, wait_s=20, known=known))
    assert (await client.cancel(job.id, reason="test")).status is JobState.CANCELLED
    assert (await waiting).status is JobState.CANCELLED
    with pytest.raises(errors.JobWasCancelled):
        await client.result(job.id)
    with pytest.raises(errors.IllegalState):
        await client.cancel(job.id)
    again = await client.retry(job.id)
    assert again.retry_of == job.id
    assert await client.result(again.id, timeout_s=30) == {"steps": 2, "attempt": 1}
    await client.delete(again.id)
    with pytest.raises(errors.JobNotFound):
        await client.get(again.id)
    assert "demo.steps" in [kind.type for kind in await client.job_types()]
    assert (await client.stats()).total >= 1
    info = await client.upload(b"a,b\n1,2\n", name="t.csv")
    assert (info.media_type, await client.download(info.id)) == ("text/csv", b"a,b\n1,2\n")
    assert (await client.download_to(info.id, tmp_path / "t.csv")).stat().st_size == 8
    with pytest.raises(errors.FileMissing):
        await client.download("0" * 26)
    with pytest.raises(errors.UnknownJobType):
        await client.submit("no.such.type")
    with pytest.raises(errors.InvalidInput) as caught:
        await client.submit("demo.steps", {"steps": 0})
    assert caught.value.errors[0].field == "input.steps"
    first = await client.submit("demo.steps", {"steps": 1}, idempotency_key=f"once-{job.id}")
    assert (await client.submit("demo.steps", {"steps": 1}, idempotency_key=f"once-{job.id}")).id == first.id
    with pytest.raises(errors.IdempotencyConflict):
        await client.submit("demo.steps", {"steps": 2}, idempotency_key=f"once-{job.id}")
    async with Client(live_stack.url, live_stack.token("mallory")) as other:
        with pytest.raises(errors.JobNotFound):
            await take_all(other.watch(first.id))


async def test_a_failed_job_raises_from_result_and_is_watched_to_its_end(client: Client) -> None:
    """On a failure after tries."""
    job = await client.submit("demo.steps", {"steps": 2, "fail_at": 1, "fail_times": 1})
    assert await client.result(job.id, timeout_s=30) == {"steps": 2, "attempt": 2}
    events = await take_all(client.watch(job.id))
    assert_whole(events)
    assert "retrying" in [event.kind for event in events]
    assert await take_all(client.watch(job.id, events[-1].position)) == []
    assert [event.seq for event in await take_all(client.watch(job.id, events[-2].position))] == [
        events[-1].seq
    ]


async def test_a_long_log_is_replayed_to_several_watches_at_once(client: Client) -> None:
    """Beyond what one acknowledgement holds, and with a second subscription in the middle of the first."""
    job = await client.submit("demo.steps", {"steps": 1200, "output_every": 1})
    await client.result(job.id, timeout_s=60)
    watch = client.watch(job.id)
    first = await anext(watch)
    assert isinstance(first, Event)
    rest, whole = await asyncio.gather(take_all(watch), take_all(client.watch(job.id)))
    assert [first, *rest] == whole
    assert_whole(whole)
    assert sum(event.kind == "output" for event in whole) == 1200


def test_the_sync_client_follows_a_real_job(live_stack: LiveStack) -> None:
    """Without an event loop."""
    with SyncClient(live_stack.url, live_stack.token) as client:
        job = client.submit("demo.steps", {"steps": 5, "delay_ms": 5})
        events = [item for item in client.watch(job.id) if isinstance(item, Event)]
        assert_whole(events)
        assert client.result(job.id) == {"steps": 5, "attempt": 1}


async def run(live_stack: LiveStack, *arguments: str) -> tuple[int, str, str]:
    """Run the `tidings` command."""
    env = {**os.environ, "TIDINGS_URL": live_stack.url, "TIDINGS_TOKEN": live_stack.token()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidings", *arguments,
        env=env, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(scaled(30)):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_commands_work_on_the_real_stack(live_stack: LiveStack, client: Client) -> None:
    """Submitting, watching, listing; a cancelled job is a status of its own."""
    cancelled = await client.submit("demo.steps", {"steps": 1}, delay_s=3600)
    fine, stopped, listed = await asyncio.gather(
        run(live_stack, "submit", "demo.steps", "-i", '{"steps": 3, "output_every": 1}', "--watch"),
        run(live_stack, "cancel", cancelled.id),
        run(live_stack, "jobs", "--json"),
    )
    assert fine[0] == 0
    assert "100%" in fine[1]
    assert "step 3" in fine[1]
    assert stopped == (0, f"{cancelled.id} cancelled\n", "")
    assert listed[0] == 0
    assert cancelled.id in [json.loads(line)["id"] for line in listed[1].splitlines()]
    status, out, err = await run(live_stack, "watch", cancelled.id, "--json")
    assert (status, err) == (1, "")
    events: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert [event["kind"] for event in events] == ["scheduled", "cancelled"]
