"""A rolling upgrade: two releases work side by side on one store, and their processes are killed one after the other."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.support.releases import NEXT_VERSION, Release, end, free_port, make_next, this_release
from tests.support.timing import eventually, scaled
from tidings import Backoff, Client, Event, JobState, WatchPolicy, __version__, errors
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.store import Store, Tenant, commands, worker_commands

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

SECRET = "a-secret-for-tests-of-more-than-32-characters"
JOBS_A_SERVER = 15
STEPS = 40
PATIENT = WatchPolicy(backoff=Backoff(base_s=0.05, cap_s=0.3), offline_timeout_s=scaled(60))


def token() -> str:
    """Make a token of the one owner of all jobs."""
    now = int(time.time())
    return jwt.encode({"sub": "alice", "org": "acme", "iat": now, "exp": now + 3600}, SECRET, "HS256")


class Fleet:
    """The processes of both releases, by name. They run until they are ended."""

    def __init__(self, old: Release, new: Release) -> None:
        self.releases = {"old": old, "new": new}
        self.ports = {"old": free_port(), "new": free_port()}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def start(self, what: str, place: str, release: str) -> None:
        """Start a worker or a server. A server keeps the place's port, whatever release it is of."""
        extra = ["tidings_tasks.demo"] if what == "worker" else ["--port", str(self.ports[place])]
        self._processes[f"{what} {place}"] = await asyncio.to_thread(
            self.releases[release].start, what, *extra, WORKER_ID=f"{what}-{place}-{release}-{time.time_ns()}"
        )

    async def kill(self, name: str) -> None:
        """Kill a process with -9."""
        await asyncio.to_thread(end, self._processes[name], signal.SIGKILL)

    def close(self) -> None:
        """End what is left."""
        for process in self._processes.values():
            end(process)

    def url(self, place: str) -> str:
        """Where the server of a place listens."""
        return f"http://127.0.0.1:{self.ports[place]}"


@pytest.fixture
async def fleet(private_valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Run a worker and a server of either release."""
    environ = {
        "REDIS_URL": private_valkey.url, "JWT_SECRET": SECRET, "TIDINGS_ENV": "test", "TIDINGS_LEASE_S": "2",
        "TIDINGS_JOBS": "tidings_tasks.demo", "TIDINGS_DATA_DIR": str(tmp_path / "data"), "WORKER_CONCURRENCY": "8",
    }  # fmt: skip
    (tmp_path / "cwd").mkdir()
    new = await asyncio.to_thread(make_next, tmp_path / "next", tmp_path / "cwd", **environ)
    fleet = Fleet(this_release(tmp_path / "cwd", **environ), new)
    try:
        for release in ("old", "new"):
            await fleet.start("server", release, release)
            await fleet.start("worker", release, release)
        yield fleet
    finally:
        await asyncio.to_thread(fleet.close)


@pytest.fixture
async def store(private_valkey: EmbeddedValkey) -> AsyncIterator[Store]:
    """Read the store itself."""
    store = Store(private_valkey.url)
    yield store
    await store.aclose()


async def follow(client: Client, job_id: str) -> list[Event]:
    """Watch a job from its first event to its end; the SDK raises when it has missed anything for good."""
    return [item async for item in client.watch(job_id, after="0") if isinstance(item, Event)]


async def test_an_upgrade_loses_nothing(fleet: Fleet, store: Store) -> None:
    """Jobs of both servers, watched from the other one: each ends once, and its watcher sees all of its log."""

    async def both_are_there() -> bool:
        workers = await store.run(worker_commands.list_workers())
        return {worker.version for worker in workers} == {__version__, NEXT_VERSION}

    await eventually(both_are_there)
    async with AsyncExitStack() as stack:
        clients: dict[str, Client] = {}
        for place in ("old", "new"):
            client = Client(fleet.url(place), token(), watch_policy=PATIENT)
            clients[place] = await stack.enter_async_context(client)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        watches: dict[str, asyncio.Task[list[Event]]] = {}
        for submitted_at, watched_at in (("old", "new"), ("new", "old")):
            for _ in range(JOBS_A_SERVER):
                body: Any = {"steps": STEPS, "delay_ms": 50, "output_every": 10}
                job = await clients[submitted_at].submit("demo.steps", body)
                watches[job.id] = group.create_task(follow(clients[watched_at], job.id))

        async def ended(count: int) -> None:
            await eventually(lambda: sum(task.done() for task in watches.values()) >= count, 60)

        # One part after the other gives way to the next release, in the midst of its work.
        await ended(1)
        await fleet.kill("worker old")
        await fleet.start("worker", "old", "new")
        await fleet.kill("server old")
        await fleet.start("server", "old", "new")
        await ended(len(watches) // 2)
        await fleet.kill("worker new")
        await fleet.start("worker", "new", "new")
        await fleet.kill("server new")
        await fleet.start("server", "new", "new")
    kinds: set[str] = set()
    for job_id, task in watches.items():
        events = task.result()
        kinds |= {event.kind for event in events}
        check(events)
        record = await store.run(commands.read_job(job_id))
        assert record is not None
        assert (record.state, record.head) == (JobState.COMPLETED, events[-1].seq)
        assert record.spec.owner == "alice"
    assert "placed" in kinds, "no watcher saw what only the next release writes"
    counts = await store.run(commands.count_jobs(0, Tenant("alice", "acme")))
    assert {state: count for state, count in counts.items() if count} == {JobState.COMPLETED: len(watches)}


def check(events: list[Event]) -> None:
    """Assert that a watcher saw a log without a gap or a repeat, and its one end."""
    at = 0
    for event in events:
        assert (event.prev if event.prev is not None else event.seq - 1) <= at < event.seq, events
        at = event.seq
    assert [event.is_terminal for event in events] == [False] * (len(events) - 1) + [True]
    assert events[-1].kind == "completed"
    assert events[-1].data["result"]["steps"] == STEPS
    starts = [event for event in events if event.kind == "started"]
    assert [event.attempt for event in starts] == list(range(1, len(starts) + 1))
    placed = [event.attempt for event in events if event.kind == "placed"]
    assert placed == [event.attempt for event in starts if "zone" in event.data], (
        "the added event and field go together"
    )


async def test_a_job_of_the_next_release_is_read_by_this_one(fleet: Fleet, store: Store) -> None:
    """Its unknown members change nothing in any answer, and an older worker runs it."""
    async with (
        Client(fleet.url("old"), token(), watch_policy=PATIENT) as old,
        Client(fleet.url("new"), token(), watch_policy=PATIENT) as new,
    ):
        await fleet.kill("worker new")
        job = await new.submit("demo.steps", {"steps": 3})
        events = await follow(old, job.id)
        assert events[-1].kind == "completed"
        assert "placed" not in {event.kind for event in events}
        seen = [(await client.get(job.id)).model_dump() for client in (old, new)]
        for view in seen:
            view.pop("queue_position")
        assert seen[0] == seen[1]
        record = await store.run(commands.read_job(job.id))
        assert record is not None
        assert record.state is JobState.COMPLETED


MODEL = """
from pydantic import BaseModel
from tidings_tasks import JobContext, job

class Rows(BaseModel):
    {field}

@job("shift.rows")
async def rows(ctx: JobContext, input: Rows) -> str:
    await ctx.log("info", "called")
    return "done"
"""


async def test_an_input_that_the_next_worker_does_not_take_fails_with_its_field(
    private_valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    """Accepted by the model it had when it was submitted; its log and the SDK say what is wrong, without a retry."""
    for name, field in (("before", "rows: int"), ("after", "rows: list[str]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shift.py").write_text(MODEL.format(field=field), "utf-8")
    environ = {
        "REDIS_URL": private_valkey.url, "JWT_SECRET": SECRET, "TIDINGS_ENV": "test", "TIDINGS_JOBS": "shift",
        "TIDINGS_DATA_DIR": str(tmp_path / "data"),
    }  # fmt: skip
    port = free_port()
    before, after = (this_release(tmp_path / name, **environ) for name in ("before", "after"))
    async with AsyncExitStack() as stack:
        server = await asyncio.to_thread(before.start, "server", "--port", str(port))
        stack.push_async_callback(asyncio.to_thread, end, server)
        client = await stack.enter_async_context(Client(f"http://127.0.0.1:{port}", token()))
        job = await client.submit("shift.rows", {"rows": 3})
        worker = await asyncio.to_thread(after.start, "worker")
        stack.push_async_callback(asyncio.to_thread, end, worker)
        events = await follow(client, job.id)
        assert [event.kind.value for event in events] == ["queued", "started", "failed"]
        error = events[-1].data["error"]
        assert (error["code"], error["type"]) == ("invalid_input", "InvalidInput")
        assert error["message"].startswith("input.rows: ")
        with pytest.raises(errors.JobFailed, match=r"invalid_input: input\.rows: ") as caught:
            await client.result(job.id)
        assert caught.value.error == error
        seen = await client.get(job.id)
        assert (seen.status, seen.tries, seen.input) == (JobState.FAILED, 1, {"rows": 3})
