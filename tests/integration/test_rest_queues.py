"""Queues over REST: seen, paused, resumed, drained and purged over all shards; workers and dependencies beside them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tidings.protocol import new_job_id
from tidings_server.api.admin import queues
from tidings_tasks.store import Spec, Submission, Tenant, Verb, commands
from tidings_tasks.store.limits import Breaker, QueueLimits, QueueState, Rate
from tidings_tasks.store.worker_commands import RunningJob, WorkerInfo, beat

ADMIN = make_token("root", scope="admin")
OWNERS = [make_token(name, org=org) for name in ("alice", "bob", "carol") for org in (None, "acme", "globex")]


@pytest.fixture(params=[1, 3], ids=["one shard", "three shards"])
async def rest(
    request: pytest.FixtureRequest, valkey_url: str, key_prefix: str, tmp_path: Path
) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    settings = make_settings(tmp_path, key_prefix, shards=request.param)
    async with serve(settings, valkey_url) as served:
        yield served


async def ask(rest: Rest, path: str, method: str = "GET", *, status: int = 200, **sent: Any) -> Any:
    """Ask as an operator."""
    answer, told = await rest.call(method, f"/api/admin/{path}", token=ADMIN, **sent)
    assert answer.status == status, told
    return told


async def queue(rest: Rest, name: str = "reports") -> Any:
    """A queue as it stands."""
    (found,) = [each for each in (await ask(rest, "queues"))["queues"] if each["name"] == name]
    return found


async def test_every_known_queue_is_listed_with_its_policy(rest: Rest) -> None:
    """The built-in ones at rest."""
    listed = (await ask(rest, "queues"))["queues"]
    names = [each["name"] for each in listed]
    assert names == sorted(names)
    assert {"critical", "reports", "default", "scheduled"} <= set(names)
    for each in listed:
        assert (each["state"], each["queued"], each["parked"], each["running"]) == ("active", 0, 0, 0)
        assert each["policy"]["name"] == each["name"]


async def test_counts_are_those_of_all_shards(rest: Rest) -> None:
    """Of all owners."""
    for token in OWNERS:
        await rest.submit(token=token)
    claim = await rest.claim(shard=int((await rest.submit(token=OWNERS[0]))["id"].rpartition("s")[2]))
    told = await queue(rest)
    assert (told["queued"], told["running"]) == (len(OWNERS), 1)
    await rest.write(claim, (Verb.COMPLETE, {}))
    assert (await queue(rest))["running"] == 0


async def test_limits_are_shown_as_they_are_written(rest: Rest) -> None:
    """Rates as in the settings. The queue is one that the server does not declare, and so does not set to its own limits."""
    limits = QueueLimits(100, 3, Rate(20, 1), Rate(10, 60), None)
    for shard in range(rest.store.keyspace.shards):
        await rest.store.run(commands.configure(shard, queues={"films": limits}))
        await rest.store.run(commands.set_queue_state(shard, "films", QueueState.PAUSED))
    assert (await queue(rest, "films"))["limits"] == {
        "max_length": 100, "max_running": 3, "rate": "20/s", "rate_per_owner": "10/min", "rate_per_org": None,
    }  # fmt: skip


async def test_a_paused_queues_jobs_wait_and_say_so(rest: Rest) -> None:
    """In every shard; resumed, they run."""
    made = [await rest.submit(token=token) for token in OWNERS]
    assert (await ask(rest, "queues/reports/pause", "POST"))["state"] == "paused"
    assert (await queue(rest))["state"] == "paused"
    for job, token in zip(made, OWNERS, strict=True):
        _, status = await rest.call("GET", f"/api/jobs/{job['id']}/status", token=token)
        assert (status["status"], status["waiting_for"]) == ("queued", "paused")
        with pytest.raises(AssertionError, match="nothing to claim"):
            await rest.claim(shard=int(job["id"].rpartition("s")[2]))
    assert (await rest.submit(token=OWNERS[0]))["waiting_for"] == "paused"
    assert (await ask(rest, "queues/reports/resume", "POST"))["state"] == "active"
    for job in made:
        await rest.claim(shard=int(job["id"].rpartition("s")[2]))


async def test_a_draining_queue_runs_what_it_has(rest: Rest) -> None:
    """And takes nothing new."""
    job = await rest.submit()
    assert (await ask(rest, "queues/reports/drain", "POST"))["state"] == "draining"
    body = {"type": "test.rows", "input": {"rows": 1}}
    assert (await rest.call("POST", "/api/jobs", json=body))[1]["code"] == "queue_draining"
    await rest.claim(shard=int(job["id"].rpartition("s")[2]))
    await ask(rest, "queues/reports/resume", "POST")
    await rest.submit()


async def test_a_queue_that_only_its_jobs_know_is_seen_and_paused(rest: Rest) -> None:
    """As that of a Dramatiq actor, which no server has heard of."""
    spec = Spec("render", "system", None, {}, 60, 3, (10,))
    shard = rest.store.keyspace.shard_of_tenant(spec.tenant)
    await rest.store.run(commands.enqueue(shard, [Submission(new_job_id(shard), spec, "invoices", 3)]))
    assert (await queue(rest, "invoices"))["queued"] == 1
    assert (await ask(rest, "queues/invoices/pause", "POST"))["state"] == "paused"


async def test_an_unknown_queue_is_not_found_with_near_names(rest: Rest) -> None:
    """For each call; nothing is set up."""
    for action in ("pause", "resume", "drain", "purge"):
        problem = await ask(rest, f"queues/report/{action}", "POST", status=404)
        assert problem["code"] == "not_found"
        assert "did you mean reports" in problem["detail"]
        for name in ("x" * 500, "%7Bs0%7D", "a%20b", "%00"):
            await ask(rest, f"queues/{name}/{action}", "POST", status=404)
    assert "report" not in [each["name"] for each in (await ask(rest, "queues"))["queues"]]


async def test_a_purge_counts_first_and_cancels_what_waits(rest: Rest) -> None:
    """Of all owners, in that queue alone; what runs goes on."""
    running = await rest.submit(token=OWNERS[0])
    await rest.claim(shard=int(running["id"].rpartition("s")[2]))
    made = [await rest.submit(token=token) for token in OWNERS]
    later = await rest.submit(token=OWNERS[1], delay_s=1000)
    other = await rest.submit(token=OWNERS[0], queue="critical")
    expected = len(made) + 1
    for sent in ({}, {"json": {}}, {"json": {"dry_run": True}}):
        told = await ask(rest, "queues/reports/purge", "POST", **sent)
        assert told == {"matched": expected, "purged": 0, "next_cursor": None}
    told = await ask(rest, "queues/reports/purge", "POST", json={"dry_run": False})
    assert told == {"matched": expected, "purged": expected, "next_cursor": None}
    for job in (*made, later):
        _, now = await rest.call("GET", f"/api/jobs/{job['id']}", token=ADMIN)
        assert now["status"] == "cancelled"
    for job, state in ((running, "running"), (other, "queued")):
        assert (await rest.call("GET", f"/api/jobs/{job['id']}", token=ADMIN))[1]["status"] == state


async def test_the_work_of_a_purge_is_bounded_and_goes_on_by_cursor(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the end of a shard too."""
    monkeypatch.setattr(queues, "PAGE_JOBS", 2)
    monkeypatch.setattr(queues, "MAX_PAGES", 2)
    for token in OWNERS:
        await rest.submit(token=token)
    told = [await ask(rest, "queues/reports/purge", "POST", json={"dry_run": False})]
    while told[-1]["next_cursor"] is not None:
        body = {"dry_run": False, "cursor": told[-1]["next_cursor"]}
        told.append(await ask(rest, "queues/reports/purge", "POST", json=body))
    assert len(told) >= 3
    assert max(part["purged"] for part in told) <= 4
    assert sum(part["purged"] for part in told) == len(OWNERS)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"dry_run": 0}, "dry_run"),
        ({"dry_run": False, "cursor": "x"}, "cursor"),
        ({"dry_run": False, "cursor": "OTk5OTk6"}, "cursor"),
        ({"dryrun": False}, "dryrun"),
        ([], "body"),
    ],
)
async def test_a_wrong_purge_does_nothing(rest: Rest, body: Any, field: str) -> None:
    """422 by field; ``OTk5OTk6`` names shard 99999."""
    await rest.submit()
    problem = await ask(
        rest,
        "queues/reports/purge",
        "POST",
        status=422,
        data=orjson.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    assert field in [entry["field"] for entry in problem["errors"]]
    assert (await queue(rest))["queued"] == 1


async def test_workers_are_told_as_they_described_themselves(rest: Rest) -> None:
    """Times as everywhere; none is an empty list."""
    assert await ask(rest, "workers") == {"workers": []}
    now_ms = int(time.time() * 1000)
    info = WorkerInfo(
        id="w1", host="web-1", pid=4711, profile="primary", queues=("critical", "reports"), concurrency=10,
        running=(RunningJob("01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0", "test.rows", now_ms),), running_count=1,
        rss_bytes=1000, version="0.1.0", runtime="tidings", started_ms=now_ms, done=7, failed=1, is_stopping=False,
    )  # fmt: skip
    await rest.store.run(beat("w1", info.to_json(), 60_000, {}, run="r", number=1))
    (told,) = (await ask(rest, "workers"))["workers"]
    assert (told["id"], told["host"], told["pid"], told["queues"]) == (
        "w1",
        "web-1",
        4711,
        ["critical", "reports"],
    )
    assert told["running"][0]["type"] == "test.rows"
    assert told["seen_at"].endswith("Z")


async def test_dependencies_without_failures_are_not_told(rest: Rest) -> None:
    """Nothing is open."""
    assert await ask(rest, "dependencies") == {"dependencies": []}


async def test_an_open_circuit_is_told_with_its_end(rest: Rest) -> None:
    """As it stands in the shard where it stands worst."""
    store = rest.store
    for shard in range(store.keyspace.shards):
        await store.run(commands.configure(shard, dependencies={"svc": Breaker(failures=1)}))
    tenant = Tenant("alice")
    shard = store.keyspace.shard_of_tenant(tenant)
    spec = Spec("test.rows", "alice", None, {"rows": 1}, 60, 3, (1.0,))
    job = Submission(new_job_id(shard), spec, "reports", 3, dependency="svc")
    await store.run(commands.enqueue(shard, [job]))
    error = {"code": "exception", "type": "ConnectionError", "message": "no answer"}
    extra = orjson.dumps({"delay_ms": 1000, "dependency_failed": True}).decode()
    await rest.write(await rest.claim(shard=shard), (Verb.RETRY, error), extra=extra)
    (told,) = (await ask(rest, "dependencies"))["dependencies"]
    assert (told["name"], told["state"]) == ("svc", "open")
    assert told["open_until"].endswith("Z")
