"""The estimates in a job's status: from past durations while it waits, from its progress while it runs, and its slowness."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.running import running_worker
from tests.support.rest import REGISTRY, Rest, make_settings, serve
from tests.support.timing import eventually
from tidings_server.context import FORECAST
from tidings_tasks.store import Keyspace, Verb, WorkerInfo, bucket_of, worker_commands


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


async def beat(rest: Rest, duration_s: float, *, count: int = 20, concurrency: int = 2) -> None:
    """Have a worker that serves ``reports`` and has completed jobs of the tests' type."""
    info = WorkerInfo(
        "w1", "h", 1, "", ("reports",), concurrency, (), 0, 1, "1", "tidings", 0, count, 0, False
    )  # fmt: skip
    durations = {"test.rows": {bucket_of(duration_s): count}} if count else {}
    await rest.store.run(
        worker_commands.beat("w1", info.to_json(), 60_000, durations, run="r", number=time.time_ns() >> 12)
    )


async def status(rest: Rest, job_id: str) -> dict[str, Any]:
    """Ask for a job's status."""
    answer, body = await rest.call("GET", f"/api/jobs/{job_id}/status")
    assert answer.status == 200
    return dict(body)


async def test_a_waiting_job_is_told_when_it_will_be_done(rest: Rest) -> None:
    """By its place, by how many run at once, and by how long its kind takes."""
    await beat(rest, 10.0, concurrency=2)
    ids = [(await rest.submit())["id"] for _ in range(4)]
    etas = [(await status(rest, job_id))["eta_s"] for job_id in ids]
    assert etas == pytest.approx([10, 10, 15, 20], rel=0.1)
    _, body = await rest.call("GET", f"/api/jobs/{ids[3]}")
    assert body["eta_s"] == pytest.approx(20, rel=0.1)
    _, page = await rest.call("GET", "/api/jobs")
    assert [job["eta_s"] for job in page["jobs"]] == pytest.approx([20, 15, 10, 10], rel=0.1)


async def test_nothing_is_told_where_nothing_is_known(rest: Rest) -> None:
    """No worker that lives, or no past job."""
    job_id = (await rest.submit())["id"]
    assert (await status(rest, job_id))["eta_s"] is None
    await beat(rest, 1, count=0)
    assert (await status(rest, job_id))["eta_s"] is None


async def test_a_running_job_is_told_by_its_kind_and_then_by_itself(rest: Rest) -> None:
    """Past durations, then its percentage, and its own estimate before all; the ETag is none of it."""
    await beat(rest, 10.0)
    job_id = (await rest.submit())["id"]
    claim = await rest.claim()
    answer, body = await rest.call("GET", f"/api/jobs/{job_id}/status")
    assert body["eta_s"] == pytest.approx(10, rel=0.2)
    assert body["slow"] is False
    etag = answer.headers["ETag"]
    again, _ = await rest.call("GET", f"/api/jobs/{job_id}/status", headers={"If-None-Match": etag})
    assert again.status == 304
    await rest.write(claim, (Verb.PROGRESS, {"percent": 99.0}))
    by_percent = (await status(rest, job_id))["eta_s"]
    assert by_percent < 5
    await rest.write(claim, (Verb.PROGRESS, {"percent": 99.0, "eta_s": 77}), first=2)
    assert (await status(rest, job_id))["eta_s"] == pytest.approx(77, abs=5)


async def test_a_job_slower_than_nearly_all_is_marked(rest: Rest) -> None:
    """And is no more told when it ends."""
    await beat(rest, 0.01)
    job_id = (await rest.submit())["id"]
    await rest.claim()

    async def is_slow() -> bool:
        return bool((await status(rest, job_id))["slow"])

    await eventually(is_slow, 5)
    assert (await status(rest, job_id))["eta_s"] is None


async def test_estimates_cost_one_look_in_five_seconds(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask."""
    looks = 0
    read_durations = worker_commands.read_durations

    def counted(types: Any) -> Any:
        nonlocal looks
        looks += 1
        return read_durations(types)

    monkeypatch.setattr(worker_commands, "read_durations", counted)
    await beat(rest, 10.0)
    job_id = (await rest.submit())["id"]
    for _ in range(30):
        await status(rest, job_id)
    assert looks == 1


async def test_a_real_workers_jobs_make_the_estimate(
    rest: Rest, valkey_url: str, key_prefix: str, tmp_path: Path
) -> None:
    """Whole way: jobs run, their durations travel with the beat, and the next one is told."""
    keyspace = Keyspace(key_prefix)
    async with running_worker(valkey_url, keyspace, REGISTRY, tmp_path / "worker"):
        for _ in range(3):
            job_id = (await rest.submit())["id"]

            async def is_done(job_id: str = job_id) -> bool:
                return bool((await status(rest, job_id))["status"] == "completed")

            await eventually(is_done)
        found = await rest.store.run(worker_commands.list_workers())
        assert [info.runtime for info in found] == ["tidings"]
    durations = await rest.store.run(worker_commands.read_durations(["test.rows"]))
    assert durations["test.rows"].count == 3
    assert rest.app[FORECAST] is not None
