"""Flows carried out by real workers: results handed on, failures, cancellation, and workers that die in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, ConfigDict

from tests.integration.running import Jobs, open_jobs, running_worker
from tests.integration.worker_processes import worker_environ, worker_process
from tests.support.timing import eventually
from tidings.protocol import JobState
from tidings_tasks import Fail, JobContext, SyncJobContext, demo, job
from tidings_tasks.flows import Flow, chain, group
from tidings_tasks.flows.planning import FLOW
from tidings_tasks.registry import REGISTRY, Registry
from tidings_tasks.store import JobRecord, Keyspace, commands
from tidings_tasks.store.flow_plan import step_id

TYPES = Registry()
LEASE_S = 1.0


class Numbers(BaseModel):
    """What the tests' jobs take."""

    model_config = ConfigDict(extra="forbid")

    numbers: list[int] = []


@job("f.count", registry=TYPES)
async def count(ctx: JobContext, input: Numbers) -> dict[str, Any]:
    """Make numbers, one more than were given."""
    await ctx.progress(percent=50)
    return {"numbers": [*input.numbers, len(input.numbers)]}


@job("f.sum", registry=TYPES)
def total(ctx: SyncJobContext, input: Numbers) -> int:
    """Add numbers up, on a thread."""
    ctx.progress(percent=50)
    return sum(input.numbers)


@job("f.fail", registry=TYPES)
async def failing(ctx: JobContext, input: Numbers) -> None:
    """Fail."""
    raise Fail("no_use", "it cannot be done")


@job("f.wait", registry=TYPES)
async def waiting(ctx: JobContext, input: Numbers) -> None:
    """Run until cancelled."""
    await ctx.progress(percent=10)
    await asyncio.Event().wait()


@pytest.fixture
async def jobs(valkey_url: str, keyspace: Keyspace, tmp_path: Path) -> AsyncIterator[Jobs]:
    """Give a worker that serves the tests' types, and what asks the store."""
    async with (
        open_jobs(valkey_url, keyspace, TYPES) as opened,
        running_worker(valkey_url, keyspace, TYPES, tmp_path),
    ):
        yield opened


async def run(jobs: Jobs, flow: Flow, **options: Any) -> JobRecord:
    """Submit a flow and wait for its end."""
    return await jobs.until(await jobs.submit(FLOW, flow.to_input(), **options), timeout_s=30)


def steps_of(record: JobRecord) -> dict[str, Any]:
    """Read what became of the steps."""
    assert record.result is not None
    steps: dict[str, Any] = orjson.loads(record.result)["steps"]
    return steps


async def test_a_chain_hands_results_on(jobs: Jobs) -> None:
    """Whole, or a part of them, to functions of both kinds."""
    first = count.step({"numbers": [5, 6]})
    second = count.step({"numbers": first.result["numbers"]})
    last = total.step({"numbers": [second.result["numbers"][2], second.result["numbers"][3], 10]})
    record = await run(jobs, chain(first, second, last))
    assert record.state is JobState.COMPLETED
    assert {name: step.get("result") for name, step in steps_of(record).items()} == {
        "count": {"numbers": [5, 6, 2]}, "count-2": {"numbers": [5, 6, 2, 3]}, "sum": 15,
    }  # fmt: skip
    percents = [event["data"]["percent"] for event in await jobs.events(record.id, "progress")]
    assert percents[-1] == 100


async def test_fifty_steps_fan_out_and_in(jobs: Jobs) -> None:
    """Each once; the last one begins behind them all."""
    parts = [total.step({"numbers": [n]}) for n in range(50)]
    last = total.step({"numbers": [part.result for part in parts]}, name="all")
    record = await run(jobs, chain(count.step(), group(*parts), last))
    steps = steps_of(record)
    assert steps["all"]["result"] == sum(range(50))
    assert len(steps) == 52
    starts = {}
    for name, step in steps.items():
        [started] = await jobs.events(step["job_id"], "started")
        [ended] = await jobs.events(step["job_id"], "completed")
        starts[name] = (started["at"], ended["at"])
    assert starts["all"][0] >= max(end for name, (_, end) in starts.items() if name != "all")
    assert (await jobs.events(record.id))[-1]["at"] >= starts["all"][1]


@pytest.mark.parametrize(("policy", "side"), [("stop", "cancelled"), ("continue", "completed")])
async def test_a_failed_step_ends_the_flow_as_its_policy_says(jobs: Jobs, policy: Any, side: str) -> None:
    """At once, or when all that can run has run."""
    bad = failing.step()
    slow = count.step(name="slow", delay_s=1)
    record = await run(jobs, group(chain(bad, count.step(name="never")), slow, on_failure=policy))
    assert record.state is JobState.FAILED
    assert orjson.loads(record.error or b"") == {
        "code": "child_failed", "type": "ChildFailed", "message": "step fail failed: it cannot be done",
    }  # fmt: skip
    assert {name: step["status"] for name, step in steps_of(record).items()} == {
        "fail": "failed", "never": "skipped", "slow": side,
    }  # fmt: skip


async def test_a_cancelled_flow_stops_its_running_steps(jobs: Jobs) -> None:
    """The worker is told, and the flow is cancelled with the last of them."""
    flow_id = await jobs.submit(
        FLOW, group(waiting.step(), waiting.step(), chain(waiting.step(), count.step())).to_input()
    )
    ids = [step_id(flow_id, number) for number in (1, 2, 3)]
    for job_id in ids:
        await jobs.until_kind(job_id, "progress")
    assert await jobs.cancel(flow_id) == "cancelling"
    record = await jobs.until(flow_id)
    assert record.state is JobState.CANCELLED
    assert [(await jobs.read(job_id)).state for job_id in ids] == [JobState.CANCELLED] * 3
    assert steps_of(record)["count"] == {"job_id": None, "status": "skipped"}


async def test_a_result_that_does_not_fit_fails_the_step_that_takes_it(jobs: Jobs) -> None:
    """The input is validated when it is whole; a place that is not there is named."""
    first = count.step()
    record = await run(jobs, chain(first, total.step({"numbers": first.result})))
    assert steps_of(record)["sum"]["error"]["code"] == "invalid_input"
    assert "input.numbers" in steps_of(record)["sum"]["error"]["message"]
    again = count.step()
    record = await run(jobs, chain(again, total.step({"numbers": again.result["none"]})))
    assert (
        steps_of(record)["sum"]["error"]["message"] == "input.numbers: the result of step 'count' has no none"
    )


async def test_a_flow_waits_for_its_time_and_needs_no_other_job(jobs: Jobs) -> None:
    """An idle worker begins it when it is due."""
    record = await run(jobs, chain(count.step()), delay_s=0.5)
    assert record.state is JobState.COMPLETED
    assert (await jobs.kinds(record.id))[:3] == ["scheduled", "queued", "started"]


async def test_killed_workers_leave_flows_whole(valkey_url: str, keyspace: Keyspace, tmp_path: Path) -> None:
    """Workers are killed again and again in the middle of it; each step completes once, and the flow ends."""
    environ = worker_environ(valkey_url, keyspace, tmp_path, lease_s=LEASE_S)
    steps = [
        demo.steps.step({"steps": 4, "delay_ms": 20, **({"crash_at": 3} if n % 4 == 0 else {})})
        for n in range(12)
    ]
    flow = chain(group(*steps), demo.steps.step({"steps": 1, "crash_at": 1}, name="last"))
    async with open_jobs(valkey_url, keyspace, REGISTRY) as opened:
        flow_id = await opened.submit(FLOW, flow.to_input())

        async def has_ended() -> bool:
            return (await opened.read(flow_id)).state.is_terminal

        kills = 0
        while not await has_ended():
            assert kills < 20
            with worker_process(
                "tidings_tasks.demo", environ=environ | {"WORKER_CONCURRENCY": "4"}
            ) as process:

                async def is_over(process: Any = process) -> bool:
                    return process.poll() is not None or await has_ended()

                await eventually(is_over, 30)
                kills += process.poll() is not None
        assert kills >= 2
        record = await opened.read(flow_id)
        assert record.state is JobState.COMPLETED
        for step in steps_of(record).values():
            assert len(await opened.events(step["job_id"], "completed")) == 1
        page = await opened.store.run(commands.count_jobs(0, record.tenant))
        assert page[JobState.COMPLETED] == 14
