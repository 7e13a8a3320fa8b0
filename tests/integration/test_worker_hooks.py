"""Hooks hear what the store has, in order, and harm neither a job nor each other."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.running import Jobs, open_jobs, running_worker
from tests.support.timing import eventually, scaled
from tidings.protocol import JobState
from tidings_tasks import (
    Fail,
    JobContext,
    JobInfo,
    SyncJobContext,
    job,
    on_cancelled,
    on_completed,
    on_failed,
    on_retrying,
    on_started,
)
from tidings_tasks.hooks import HOOKS, HookEvent
from tidings_tasks.registry import Registry
from tidings_tasks.store import Keyspace, commands
from tidings_tasks.worker import hook_calls


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace, registry: Registry) -> AsyncIterator[Jobs]:
    async with open_jobs(valkey_url, keyspace, registry) as found:
        yield found


@pytest.fixture(autouse=True)
def no_hooks_left() -> Iterator[None]:
    """Forget what a test registered."""
    known = {event: list(hooks) for event, hooks in HOOKS._hooks.items()}
    yield
    HOOKS._hooks.clear()
    HOOKS._hooks.update(known)


async def test_hooks_hear_all_that_becomes_of_jobs(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """Each event once, in order, with who, what and why; sync and async; and the store has it by then."""
    heard: list[tuple[str, JobInfo]] = []
    states: dict[str, JobState] = {}

    @on_started
    async def started(info: JobInfo) -> None:
        heard.append(("started", info))

    @on_retrying
    def retrying(info: JobInfo) -> None:
        heard.append(("retrying", info))

    @on_failed
    @on_completed
    @on_cancelled
    async def ended(info: JobInfo) -> None:
        record = await jobs.store.run(commands.read_job(info.id))
        assert record is not None
        states[info.type] = record.state
        heard.append((record.state.value, info))

    @job("good", registry=registry)
    async def good(ctx: JobContext) -> None: ...

    @job("second.time", backoff_s=(0,), registry=registry)
    def second_time(ctx: SyncJobContext) -> None:
        if ctx.attempt == 1:
            raise RuntimeError("not yet")

    @job("bad", registry=registry)
    async def bad(ctx: JobContext) -> None:
        raise Fail("no_money", "the purse is empty")

    @job("endless", registry=registry)
    async def endless(ctx: JobContext) -> None:
        await ctx.output("started")
        await asyncio.sleep(3600)

    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        ids = {}
        for kind in (good, second_time, bad):
            ids[kind.name] = await jobs.submit(kind, tags=["t"], metadata={"m": 1})
            await jobs.until(ids[kind.name])
        ids["endless"] = await jobs.submit(endless)
        await jobs.until_kind(ids["endless"], "output")
        await jobs.cancel(ids["endless"])
        await jobs.until(ids["endless"])
    # The worker's end waits for hooks that are due.
    by_type = {name: [(what, info) for what, info in heard if info.id == ids[name]] for name in ids}
    assert {name: [what for what, _ in found] for name, found in by_type.items()} == {
        "good": ["started", "completed"],
        "second.time": ["started", "retrying", "started", "completed"],
        "bad": ["started", "failed"],
        "endless": ["started", "cancelled"],
    }
    assert states == {
        "good": JobState.COMPLETED, "second.time": JobState.COMPLETED, "bad": JobState.FAILED,
        "endless": JobState.CANCELLED,
    }  # fmt: skip
    began, done = (info for _, info in by_type["good"])
    assert (began.owner, began.org, began.queue, began.tags, began.metadata) == (
        "alice", "acme", "default", ("t",), {"m": 1},
    )  # fmt: skip
    assert began.duration_s is None
    assert done.duration_s is not None
    assert done.usage is not None
    again = by_type["second.time"][1][1]
    assert again.error == {"code": "exception", "type": "RuntimeError", "message": "not yet"}
    assert (again.delay_s, again.tries, again.attempt) == (0, 1, 1)
    failed = by_type["bad"][1][1]
    assert failed.error is not None
    assert failed.error["code"] == "no_money"


async def test_hooks_may_choose_types(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """By name or by the type itself."""
    heard: list[str] = []

    @job("one", registry=registry)
    async def one(ctx: JobContext) -> None: ...

    @job("two", registry=registry)
    async def two(ctx: JobContext) -> None: ...

    @on_completed(types=[one, "other"])
    def completed(info: JobInfo) -> None:
        heard.append(info.type)

    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        for kind in (two, one):
            await jobs.until(await jobs.submit(kind))
    assert heard == ["one"]


async def test_hooks_that_fail_or_hang_harm_nobody(
    jobs: Jobs,
    valkey_url: str,
    keyspace: Keyspace,
    registry: Registry,
    tmp_path: Path,
    unused_tcp_port: int,
) -> None:
    """Jobs end as ever, other hooks are called, and each outcome is counted."""
    release = threading.Event()
    heard: list[str] = []

    @on_completed
    def raises(info: JobInfo) -> None:
        raise RuntimeError("a bug of the hook's author")

    @on_completed
    def hangs(info: JobInfo) -> None:
        release.wait(60)

    @on_completed
    async def hangs_async(info: JobInfo) -> None:
        await asyncio.sleep(3600)

    @on_completed
    async def works(info: JobInfo) -> None:
        heard.append(info.id)

    @job("good", registry=registry)
    async def good(ctx: JobContext) -> str:
        return "fine"

    async with running_worker(
        valkey_url, keyspace, registry, tmp_path, hook_timeout_s=0.1, worker_port=unused_tcp_port
    ):
        job_id = await jobs.submit(good)
        assert (await jobs.until(job_id, timeout_s=2)).result == b'"fine"'
        await eventually(lambda: heard == [job_id])
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{unused_tcp_port}/metrics") as answer,
        ):
            text = await answer.text()
    release.set()
    for outcome, count in {"failed": 1, "timed_out": 2, "ok": 1}.items():
        assert f'hook_calls_total{{event="completed",outcome="{outcome}"}} {count}.0' in text


async def test_waiting_calls_are_bounded(
    jobs: Jobs,
    valkey_url: str,
    keyspace: Keyspace,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over the bound calls are dropped and counted, and jobs go on."""
    monkeypatch.setattr(hook_calls, "_MOST_WAITING", 3)
    may_go = asyncio.Event()
    heard: list[str] = []
    counts: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "tidings_tasks.worker.metrics.Metrics.count_hook",
        lambda _self, event, outcome: counts.append((event, outcome)),
    )

    @on_completed
    async def waits(info: JobInfo) -> None:
        await may_go.wait()
        heard.append(info.id)

    @job("good", registry=registry)
    async def good(ctx: JobContext) -> None: ...

    async with running_worker(valkey_url, keyspace, registry, tmp_path):
        for _ in range(8):
            await jobs.until(await jobs.submit(good))
        may_go.set()
        await eventually(lambda: len(heard) == 3)
    assert counts.count(("completed", "dropped")) == 5


async def test_a_worker_ends_in_time_with_a_hook_that_hangs(
    jobs: Jobs, valkey_url: str, keyspace: Keyspace, registry: Registry, tmp_path: Path
) -> None:
    """What is due has the rest of the grace, no more."""

    @on_completed
    async def hangs(info: JobInfo) -> None:
        await asyncio.sleep(3600)

    @job("good", registry=registry)
    async def good(ctx: JobContext) -> None: ...

    async with running_worker(valkey_url, keyspace, registry, tmp_path, shutdown_grace_s=0.2) as worker:
        await jobs.until(await jobs.submit(good))
        began_at = time.monotonic()
        worker.stop.set()
        await worker.ended()
        assert time.monotonic() - began_at < scaled(2)


def test_a_hook_that_is_registered_wrongly_is_told_so() -> None:
    """At once, where it is written."""
    with pytest.raises(TypeError, match="types is a list"):
        on_failed(types="report.rows")
    with pytest.raises(TypeError, match="types goes by name"):
        on_failed(types=["report.rows"])(3)  # type: ignore[type-var]


def test_a_reloaded_module_replaces_its_hooks() -> None:
    """The same function is not called twice."""

    def make() -> Any:
        def fn(info: JobInfo) -> None: ...

        fn.__qualname__ = "hook"
        return fn

    first, second = on_failed(make()), on_failed(make())
    assert [hook.fn for hook in HOOKS.find(HookEvent.FAILED, "any") if hook.fn in (first, second)] == [second]
