"""``InMemoryJobs`` and the fixture ``tidings_jobs``: jobs of an application, caught, looked at and run when the test says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from pydantic import BaseModel

from tidings.protocol.errors import IdempotencyConflict
from tidings_tasks import JobContext, SyncJobContext, connection, job
from tidings_tasks.flows import chain, group
from tidings_tasks.queue.broker import TidingsBroker
from tidings_tasks.registry import Registry
from tidings_tasks.testing import InMemoryJobs
from tidings_tasks.testing.jobs import Mode


class Number(BaseModel):
    n: int


@job("test.jobs.leaf")
async def leaf(ctx: JobContext, input: Number) -> int:
    return input.n


@job("test.jobs.tree")
def tree(ctx: SyncJobContext, input: Number) -> list[str]:
    return [leaf.submit({"n": n}, owner=ctx.owner) for n in range(input.n)]


@job("test.jobs.flaky", max_attempts=3, backoff_s=(60, 3600))
async def flaky(ctx: JobContext) -> int:
    if ctx.attempt < 3:
        raise RuntimeError("not yet")
    return ctx.attempt


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryJobs]:
    """Be without a store before, and without the process's broker."""
    monkeypatch.setattr(connection, "_default", None)
    monkeypatch.setattr(dramatiq.broker, "global_broker", None)
    dramatiq.set_broker(TidingsBroker())
    found = InMemoryJobs()
    with found.installed():
        yield found
    assert connection._default is None


def test_what_the_application_submits_is_recorded(jobs: InMemoryJobs) -> None:
    """With its options; it waits until the test runs it, one attempt after the other."""
    first = leaf.submit({"n": 1}, owner="alice", org="acme", tags=["t"])
    leaf.submit_many([{"n": 2}, {"n": 3}])
    assert [run.input["n"] for run in jobs.submitted] == [1, 2, 3]
    assert (jobs.submitted[0].id, jobs.submitted[0].record.spec.tags) == (first, ("t",))
    ran = jobs.run_next()
    assert ran is not None
    assert (ran.id, ran.state, jobs.submitted[1].state) == (first, "completed", "queued")
    assert [run.result for run in jobs.run_all()] == [2, 3]
    assert jobs.run_next() is None


def test_all_that_is_due_is_run_and_no_more(jobs: InMemoryJobs) -> None:
    """What jobs submit is run with them; what is delayed waits for its time."""
    tree.submit({"n": 2}, owner="alice")
    late = leaf.submit({"n": 9}, delay_s=60)
    assert [run.type for run in jobs.run_all()] == ["test.jobs.tree", "test.jobs.leaf", "test.jobs.leaf"]
    waiting = next(run for run in jobs.submitted if run.id == late)
    assert waiting.state == "scheduled"
    jobs.travel(seconds=59)
    assert jobs.run_all() == []
    jobs.travel(seconds=1)
    assert [run.result for run in jobs.run_all()] == [9]


def test_draining_travels_over_delays(jobs: InMemoryJobs) -> None:
    """Retries, delays and dates: all ends, in the order of time."""
    began = jobs.now
    flaky.submit()
    leaf.submit({"n": 1}, run_at=began + timedelta(days=2))
    leaf.submit({"n": 2}, delay_s=10)
    assert [(run.type, run.record.attempt) for run in jobs.drain(timedelta(minutes=2))] == [
        ("test.jobs.flaky", 2), ("test.jobs.leaf", 1), ("test.jobs.flaky", 2),
    ]  # fmt: skip
    assert jobs.now == began + timedelta(minutes=2)
    assert [run.result for run in jobs.drain()] == [3, 1]
    assert jobs.now >= began + timedelta(days=2)


def test_what_has_ended_is_kept_however_far_a_test_travels(jobs: InMemoryJobs) -> None:
    """And nothing is travelled to when nothing waits, not even the end of its time in the store."""

    @dramatiq.actor
    def tidy() -> str:
        return "tidied"

    leaf.submit({"n": 1})
    tidy.send()
    began = jobs.now
    jobs.drain()
    assert jobs.now == began
    leaf.submit({"n": 2}, delay_s=300 * 86_400)
    jobs.drain()
    assert [run.result for run in jobs.submitted if run.type == "test.jobs.leaf"] == [1, 2]


def test_a_date_can_be_travelled_to(jobs: InMemoryJobs) -> None:
    """``run_at`` is a moment of the store's clock."""
    moment = datetime(2099, 1, 1, tzinfo=UTC)
    leaf.submit({"n": 1}, run_at=moment)
    assert jobs.run_all() == []
    jobs.travel(until=moment)
    assert len(jobs.run_all()) == 1


def test_eager_jobs_run_where_they_are_submitted(jobs: InMemoryJobs) -> None:
    """Over their retries, jobs of jobs too; delayed ones still wait."""
    jobs.mode = "eager"
    tree.submit({"n": 2})
    flaky.submit()
    leaf.submit({"n": 5}, delay_s=5)
    assert [(run.type, run.state.value) for run in jobs.submitted] == [
        ("test.jobs.tree", "completed"),
        ("test.jobs.leaf", "completed"),
        ("test.jobs.leaf", "completed"),
        ("test.jobs.flaky", "completed"),
        ("test.jobs.leaf", "scheduled"),
    ]


async def test_eager_jobs_run_under_a_running_loop_too(jobs: InMemoryJobs) -> None:
    """Submitted with and without ``await``."""
    jobs.mode = "eager"
    await leaf.submit_async({"n": 1})
    leaf.submit({"n": 2})
    tree.submit({"n": 1})
    assert [run.state.value for run in jobs.submitted] == ["completed"] * 4


async def test_everything_has_an_async_face(jobs: InMemoryJobs) -> None:
    """On the test's loop."""
    leaf.submit({"n": 1})
    ran = await jobs.run_next_async()
    assert ran is not None
    assert ran.result == 1
    leaf.submit({"n": 2})
    assert [run.result for run in await jobs.run_all_async()] == [2]
    flaky.submit()
    assert [run.result for run in await jobs.drain_async()] == [3, 3, 3]
    run = await jobs.run_async(jobs.submit(flaky), hand_back_at=0)
    assert (run.result, run.kinds.count("started")) == (3, 3)


def test_cancelled_and_repeated_submissions_are_as_in_the_store(jobs: InMemoryJobs) -> None:
    """A queued job is cancelled at once; an idempotency key gives the first job, or a conflict."""
    first = leaf.submit({"n": 1}, idempotency_key="k")
    assert leaf.submit({"n": 1}, idempotency_key="k") == first
    with pytest.raises(IdempotencyConflict):
        leaf.submit({"n": 2}, idempotency_key="k")
    (run,) = jobs.submitted
    assert run.cancel(by="alice", reason="changed my mind") == "cancelled"
    assert run.events[-1]["data"] == {"by": "alice", "reason": "changed my mind"}
    assert run.cancel() == "terminal"
    assert jobs.run_all() == []


def test_actors_are_caught_whatever_store_their_broker_has(jobs: InMemoryJobs) -> None:
    """Also those of a broker that was given a store of its own, which has it again afterwards."""
    broker = TidingsBroker("redis://nowhere.invalid")
    dramatiq.set_broker(broker)
    own = broker.store

    @dramatiq.actor
    def greet(name: str) -> str:
        return f"hello {name}"

    mine = InMemoryJobs()
    with mine.installed():
        greet.send("ada")
    assert broker.store is own
    assert [run.result for run in mine.run_all()] == ["hello ada"]
    assert [run.type for run in mine.submitted] == ["greet"]
    assert mine.send(greet, "bob").state == "queued"
    assert mine.send_with_options(greet, ["eve"], delay=1_000).state == "scheduled"


def test_limits_hold_where_they_are_wanted() -> None:
    """A queue's rate puts jobs off, and a circuit opens; time is travelled over."""
    registry = Registry()

    @job("test.jobs.asked", queue="ai", registry=registry)
    async def asked(ctx: JobContext) -> None: ...

    @job("test.jobs.broken", dependency="api", max_attempts=1, registry=registry)
    async def broken(ctx: JobContext) -> None:
        raise OSError("down")

    free, limited = InMemoryJobs(registry), InMemoryJobs(registry, limits=True)
    for jobs in (free, limited):
        for _ in range(12):
            jobs.submit(asked, owner="alice")
    assert len(free.run_all()) == 12
    assert len(limited.run_all()) == 10
    assert limited.submitted[-1].record.waiting_for == "rate_limit"
    began = limited.now
    assert len(limited.drain()) == 2
    assert timedelta(seconds=6) <= limited.now - began <= timedelta(seconds=60)
    for _ in range(6):
        limited.submit(broken)
    assert len(limited.run_all()) == 5
    assert limited.submitted[-1].record.waiting_for == "circuit_open"
    assert len(limited.drain()) == 1


def test_a_submission_that_replaces_another_is_one_job(jobs: InMemoryJobs) -> None:
    """Deduplication is the store's; what was submitted twice is there once, with the newer input."""
    leaf.submit({"n": 1}, debounce=True, dedup_key="k", delay_s=5)
    leaf.submit({"n": 2}, debounce=True, dedup_key="k", delay_s=5)
    assert [run.input for run in jobs.submitted] == [{"n": 2}]
    leaf.submit({"n": 3})
    assert [run.input["n"] for run in jobs.submitted] == [2, 3]


@pytest.mark.parametrize("mode", ["recorded", "eager"])
def test_flows_run_in_memory(jobs: InMemoryJobs, mode: Mode) -> None:
    """Each step is a job, with the results of those before it; the flow ends with the last one."""
    first = tree.step({"n": 0})
    jobs.mode = mode
    flow_id = chain(leaf.step({"n": 1}), first, group(leaf.step({"n": 2}), leaf.step({"n": 3}))).submit()
    if mode == "recorded":
        assert [run.type for run in jobs.submitted] == ["flow", "test.jobs.leaf"]
        jobs.run_all()
    flow, *steps = jobs.submitted
    assert (flow.id, flow.state) == (flow_id, "completed")
    assert [run.result for run in steps] == [1, [], 2, 3]


def test_jobs_without_end_are_an_error(jobs: InMemoryJobs) -> None:
    """After a bounded number of attempts the test is told which job it is."""
    jobs.most_attempts = 20

    @job("test.jobs.again")
    async def again(ctx: JobContext) -> None:
        again.submit()

    again.submit()
    with pytest.raises(RuntimeError, match=r"20 attempts.*test\.jobs\.again"):
        jobs.drain()


CONFTEST = 'pytest_plugins = ["tidings_tasks.testing.plugin"]\n'
MODULE = """
import dramatiq
from tidings_tasks import job

@job("app.double")
def double(ctx) -> int:
    return 2

@dramatiq.actor
def plain() -> str:
    return "plain"
"""
TESTS = """
from app import double, plain

def test_recorded(tidings_jobs):
    double.submit(owner="alice")
    plain.send()
    assert [run.type for run in tidings_jobs.submitted] == ["app.double", "plain"]
    assert [run.result for run in tidings_jobs.run_all()] == [2, "plain"]

def test_each_test_has_its_own(tidings_jobs):
    assert tidings_jobs.submitted == []
"""


def test_the_fixture_is_a_plugin_that_a_project_names(tmp_path: Path) -> None:
    """A project of its own, with actors in a module that sets no broker."""
    for name, text in (("conftest.py", CONFTEST), ("app.py", MODULE), ("test_app.py", TESTS)):
        (tmp_path / name).write_text(text, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import tidings_tasks.testing", {"pytest", "_pytest", "lupa", "lupa.lua51"}),
        ("import tidings_tasks", {"tidings_tasks.testing", "lupa"}),
        ("import tidings_tasks.worker", {"tidings_tasks.testing", "lupa"}),
    ],
)
def test_nobody_pays_for_what_is_not_used(code: str, absent: set[str]) -> None:
    """The kit needs no pytest, and nothing that runs in production imports the kit."""
    code += "\nimport sys; print(sorted(sys.modules))"
    run: Any = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not absent & set(eval(run.stdout))


def test_without_lua_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has the worker alone."""
    monkeypatch.setitem(sys.modules, "lupa", None)
    with pytest.raises(ImportError, match=r"pip install 'tidings\[testing\]'"):
        InMemoryJobs()
