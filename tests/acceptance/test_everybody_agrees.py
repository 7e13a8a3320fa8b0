"""Whoever follows a job, however, gets the same events: all of them, in order, each once, to the end.

Under either worker: ``tidings worker``, and the stock ``dramatiq`` command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.support.driving import check_sequence
from tests.support.node import Node
from tests.support.stack import LiveStack
from tests.support.stock_stack import StockStack
from tests.support.timing import scaled
from tidings.protocol import Event

from .followers import Follow, by_curl_poll, by_curl_sse, by_node, by_sdk, by_stock_python

pytestmark = pytest.mark.acceptance

Stack = LiveStack | StockStack

PLAY = {"type": "demo.steps", "input": {"steps": 12, "delay_ms": 15}}
FLOW = {"group": [PLAY] * 8, "then": {"type": "demo.steps", "input": {"steps": {"$result": "step-1.steps"}}}}
REPORT = Path(__file__).parents[2] / "examples" / "quarterly-report.json"


@pytest.fixture(scope="module")
def stock_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StockStack]:
    """Run an installation whose worker is the stock command."""
    stack = StockStack(tmp_path_factory.mktemp("stock") / "data")
    stack.start()
    yield stack
    assert stack.stop() == 0


@pytest.fixture(params=["tidings worker", "dramatiq"])
def stack(request: pytest.FixtureRequest, live_stack: LiveStack, stock_stack: StockStack) -> Stack:
    """Give an installation with either worker."""
    return live_stack if request.param == "tidings worker" else stock_stack


async def submit(stack: Stack, job_type: str, job_input: Any) -> str:
    """Post a job and return its id."""
    headers = {"Authorization": f"Bearer {stack.token()}"}
    async with (
        aiohttp.ClientSession(stack.url, headers=headers) as session,
        session.post("/api/jobs", json={"type": job_type, "input": job_input}) as answer,
    ):
        body = await answer.json()
        assert answer.status == 202, body
        return str(body["id"])


def compare(views: Sequence[list[bytes]], head: int) -> list[Event]:
    """Check each view by itself, and that all show the same events but for folded progress."""
    by_seq: dict[int, Event] = {}
    for view in views:
        for event in check_sequence(view, head=head):
            bare = event.model_copy(update={"prev": None})
            if meta := bare.data.get("meta"):
                # JavaScript has no integers of 64 bits: it reads the nanoseconds as the nearest double.
                meta["at_ns"] = float(meta["at_ns"])
            assert by_seq.setdefault(event.seq, bare) == bare
    return [by_seq[seq] for seq in sorted(by_seq)]


async def head_of(stack: Stack, job_id: str) -> int:
    """Where the job's log ended."""
    headers = {"Authorization": f"Bearer {stack.token()}"}
    async with (
        aiohttp.ClientSession(stack.url, headers=headers) as session,
        session.get(f"/api/jobs/{job_id}") as answer,
    ):
        return int((await answer.json())["position"].rpartition(":")[2])


async def poll_status(stack: Stack, job_id: str) -> list[str]:
    """Poll the status with its ETag until the job has ended; return the positions seen. Each 304 must change nothing."""
    headers = {"Authorization": f"Bearer {stack.token()}"}
    seen: list[str] = []
    etag = ""
    async with asyncio.timeout(scaled(60)), aiohttp.ClientSession(stack.url, headers=headers) as session:
        while True:
            path = f"/api/jobs/{job_id}/status?wait=10"
            async with session.get(path, headers={"If-None-Match": etag} if etag else {}) as answer:
                if answer.status == 304:
                    assert answer.headers["ETag"] == etag
                    continue
                body = await answer.json()
                etag = answer.headers["ETag"]
            assert etag == f'W/"{body["position"]}"'
            seen.append(body["position"])
            if body["status"] == "completed":
                return seen


@pytest.mark.parametrize(
    ("job_type", "job_input"),
    [
        ("demo.steps", {"steps": 60, "delay_ms": 15, "output_every": 7, "payload_bytes": 100}),
        ("report.render", None),
        ("flow", FLOW),
    ],
)
async def test_every_client_sees_the_same_events(
    stack: Stack, node: Node, job_type: str, job_input: Any
) -> None:
    """SDK, stock Python and Node clients, curl over long-poll and SSE, and ETag polling of one running job."""
    job_id = await submit(stack, job_type, job_input or orjson.loads(REPORT.read_bytes()))
    follows: list[Follow] = [
        by_sdk,
        by_stock_python,
        by_node(node, "websocket"),
        by_node(node, "polling,websocket"),
        by_node(node, "polling"),
        by_curl_poll,
        by_curl_sse,
    ]
    async with asyncio.TaskGroup() as group:
        polling = group.create_task(poll_status(stack, job_id))
        tasks = [group.create_task(follow(stack.url, stack.token(), job_id)) for follow in follows]  # type: ignore[arg-type]  # Awaitable is Coroutine here
    head = await head_of(stack, job_id)
    events = compare([task.result() for task in tasks], head)
    assert events[-1].kind == "completed"
    positions = polling.result()
    assert positions == sorted(positions, key=lambda position: int(position.rpartition(":")[2]))
    assert positions[-1] == events[-1].position


async def test_a_killed_worker_costs_nobody_an_event(stack: Stack, node: Node) -> None:
    """`crash_at` kills the worker in mid-job: the job runs again, and every watcher sees how."""
    job_id = await submit(stack, "demo.steps", {"steps": 12, "delay_ms": 20, "crash_at": 6})
    follows: list[Follow] = [by_sdk, by_stock_python, by_node(node, "websocket"), by_curl_poll, by_curl_sse]
    views = await asyncio.gather(*(f(stack.url, stack.token(), job_id) for f in follows))
    events = compare(views, await head_of(stack, job_id))
    lifecycle = [event for event in events if event.kind not in ("progress", "log", "output")]
    assert [event.kind for event in lifecycle] == [
        "queued", "started", "retrying", "queued", "started", "completed",
    ]  # fmt: skip
    assert lifecycle[2].data["error"]["code"] == "worker_lost"
    assert events[-1].data["result"] == {"steps": 12, "attempt": 2}


async def test_a_server_that_dies_in_mid_job_costs_nobody_an_event(stack: Stack, node: Node) -> None:
    """The server is killed and comes back: whoever resumes by position has every event once."""
    job_id = await submit(stack, "demo.steps", {"steps": 150, "delay_ms": 30, "output_every": 5})
    follows: list[Follow] = [
        by_sdk,
        by_node(node, "websocket"),
        by_node(node, "polling,websocket"),
        by_curl_poll,
        by_curl_sse,
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(stack.url, stack.token(), job_id)) for follow in follows]  # type: ignore[arg-type]  # Awaitable is Coroutine here
        await first_progress(stack, job_id)
        await asyncio.to_thread(stack.restart_server)
    events = compare([task.result() for task in tasks], await head_of(stack, job_id))
    assert events[-1].kind == "completed"


async def test_a_store_that_dies_in_mid_job_costs_nobody_an_event(stack: Stack, node: Node) -> None:
    """The store is killed and comes back with what it acknowledged: the job goes on, the watchers too."""
    job_id = await submit(stack, "demo.steps", {"steps": 150, "delay_ms": 30, "output_every": 5})
    follows: list[Follow] = [by_sdk, by_stock_python, by_node(node, "websocket")]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(stack.url, stack.token(), job_id)) for follow in follows]  # type: ignore[arg-type]  # Awaitable is Coroutine here
        await first_progress(stack, job_id)
        await asyncio.to_thread(stack.kill_store)
    events = compare([task.result() for task in tasks], await head_of(stack, job_id))
    assert events[-1].kind == "completed"
    assert len({event.epoch for event in events}) == 2


async def first_progress(stack: Stack, job_id: str) -> None:
    """Wait until the job is well under way."""
    headers = {"Authorization": f"Bearer {stack.token()}"}
    async with asyncio.timeout(scaled(30)), aiohttp.ClientSession(stack.url, headers=headers) as session:
        position = "0"
        while True:
            async with session.get(f"/api/jobs/{job_id}/events?after={position}&wait=10") as answer:
                page = await answer.json()
            position = page["position"]
            if any(event["kind"] == "output" for event in page["events"]):
                return
