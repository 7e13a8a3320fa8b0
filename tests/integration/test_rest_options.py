"""Options of a submission over REST: expiry, concurrency keys, deduplication; and changing what waits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tests.support.timing import eventually
from tidings_tasks.store import Verb, commands
from tidings_tasks.store.limits import QueueState


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


async def send(rest: Rest, *, token: str = "", **fields: Any) -> tuple[Any, Any]:
    """Submit a job of the tests' type, whatever comes of it."""
    return await rest.call(
        "POST", "/api/jobs", json={"type": "test.rows", "input": {"rows": 1}} | fields, token=token
    )


async def read(rest: Rest, job: dict[str, Any]) -> Any:
    """The job as it is now."""
    return (await rest.call("GET", f"/api/jobs/{job['id']}"))[1]


async def test_the_views_tell_the_options(rest: Rest) -> None:
    """As they were given, and null where they were not."""
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat(timespec="milliseconds")
    made = await rest.submit(concurrency_key="a b/ü:c", expires_at=at)
    assert made["concurrency_key"] == "a b/ü:c"
    assert datetime.fromisoformat(made["expires_at"]) == datetime.fromisoformat(at)
    plain = await rest.submit()
    assert [plain[name] for name in ("concurrency_key", "expires_at", "waiting_for", "usage")] == [None] * 4


async def test_a_job_that_expires_before_its_start_fails(rest: Rest) -> None:
    """By whoever looks for work next."""
    made = await rest.submit(expires_in_s=0.05)
    assert 0 < datetime.fromisoformat(made["expires_at"]).timestamp() - time.time() + 1 < 2

    async def has_expired() -> bool:
        await rest.store.run(
            commands.step(0, worker="w", call=time.time_ns(), lease_ms=1000, wants=[("reports", 0)])
        )
        return bool((await read(rest, made))["status"] == "failed")

    await eventually(has_expired)
    assert (await read(rest, made))["error"]["code"] == "expired"


async def test_jobs_with_one_concurrency_key_take_turns(rest: Rest) -> None:
    """The one that waits says for what."""
    first, second = await rest.submit(concurrency_key="k"), await rest.submit(concurrency_key="k")
    other = await rest.submit(concurrency_key="k2")
    claims = [await rest.claim(), await rest.claim()]
    assert {claim.id for claim in claims} == {first["id"], other["id"]}
    assert (await read(rest, second))["waiting_for"] == "concurrency"
    _, status = await rest.call("GET", f"/api/jobs/{second['id']}/status")
    assert status["waiting_for"] == "concurrency"
    await rest.write(next(claim for claim in claims if claim.id == first["id"]), (Verb.COMPLETE, {}))
    assert (await rest.claim()).id == second["id"]
    assert (await read(rest, second))["waiting_for"] is None


async def test_a_repeat_of_a_dedup_key_is_answered_with_the_open_job(rest: Rest) -> None:
    """202 with a header that says so; the key is free when the job has ended, and always for others."""
    answer, first = await send(rest, dedup={"key": "k"})
    assert (answer.status, "Deduplicated" in answer.headers) == (202, False)
    answer, again = await send(rest, dedup={"key": "k"}, input={"rows": 9})
    assert (answer.status, answer.headers["Deduplicated"]) == (202, "true")
    assert answer.headers["Location"] == f"/api/jobs/{first['id']}"
    assert again == first
    _, others = await send(rest, dedup={"key": "k"}, token=make_token("bob"))
    assert others["id"] != first["id"]
    await rest.call("POST", f"/api/jobs/{first['id']}/cancel")
    assert (await send(rest, dedup={"key": "k"}))[1]["id"] != first["id"]


async def test_a_dedup_key_with_a_lifetime_outlives_its_job(rest: Rest) -> None:
    """For as long as it was said."""
    _, first = await send(rest, dedup={"key": "k", "ttl_s": 3600})
    await rest.call("POST", f"/api/jobs/{first['id']}/cancel")
    assert (await send(rest, dedup={"key": "k", "ttl_s": 3600}))[1]["id"] == first["id"]


async def test_a_debounced_repeat_replaces_input_and_due_time(rest: Rest) -> None:
    """Of the job that is still scheduled."""
    debounce = {"key": "k", "mode": "debounce"}
    _, first = await send(rest, dedup=debounce, delay_s=100)
    answer, again = await send(rest, dedup=debounce, delay_s=500, input={"rows": 9})
    assert answer.headers["Deduplicated"] == "true"
    assert (again["id"], again["input"]) == (first["id"], {"rows": 9})
    assert again["run_at"] > first["run_at"]


async def test_a_batch_tells_which_jobs_were_there(rest: Rest) -> None:
    """By their places; two of one batch with one key are one job."""
    _, first = await send(rest, dedup={"key": "k"})
    job = {"type": "test.rows", "input": {"rows": 1}}
    jobs = [job, job | {"dedup": {"key": "k"}}, job | {"dedup": {"key": "n"}}, job | {"dedup": {"key": "n"}}]
    answer, body = await rest.call("POST", "/api/jobs/batch", json={"jobs": jobs})
    assert answer.status == 202, body
    assert body["deduplicated"] == [1, 3]
    assert body["jobs"][1]["id"] == first["id"]
    assert body["jobs"][2]["id"] == body["jobs"][3]["id"]


async def test_a_draining_queue_refuses_with_a_time_to_come_back(rest: Rest) -> None:
    """503 for single jobs, batches and retries; another queue takes them."""
    ended = await rest.submit()
    await rest.call("POST", f"/api/jobs/{ended['id']}/cancel")
    await rest.store.run(commands.set_queue_state(0, "reports", QueueState.DRAINING))
    job = {"type": "test.rows", "input": {"rows": 1}}
    for path, body in (
        ("/api/jobs", job), ("/api/jobs/batch", {"jobs": [job | {"queue": "critical"}, job]}),
        (f"/api/jobs/{ended['id']}/retry", None),
    ):  # fmt: skip
        answer, problem = await rest.call("POST", path, json=body)
        assert (answer.status, problem["code"]) == (503, "queue_draining"), path
        assert int(answer.headers["Retry-After"]) > 0
    assert (await rest.call("GET", "/api/jobs/stats"))[1]["total"] == 1
    assert (await send(rest, queue="critical"))[0].status == 202


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"concurrency_key": ""}, "concurrency_key"),
        ({"concurrency_key": "x" * 129}, "concurrency_key"),
        ({"concurrency_key": "a\nb"}, "concurrency_key"),
        ({"concurrency_key": 5}, "concurrency_key"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"expires_in_s": "5"}, "expires_in_s"),
        ({"expires_in_s": 1e12}, "expires_in_s"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"expires_at": "9999-12-31T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00Z", "expires_in_s": 5}, "body"),
        ({"dedup": "k"}, "dedup"),
        ({"dedup": {}}, "dedup.key"),
        ({"dedup": {"key": ""}}, "dedup.key"),
        ({"dedup": {"key": "a\x00b"}}, "dedup.key"),
        ({"dedup": {"key": "k", "ttl_s": 0}}, "dedup.ttl_s"),
        ({"dedup": {"key": "k", "mode": "both"}}, "dedup.mode"),
        ({"dedup": {"key": "k", "colour": 1}}, "dedup.colour"),
        ({"dedup": {"key": "k", "mode": "debounce"}}, "body"),
    ],
)
async def test_wrong_options_are_refused_by_field(rest: Rest, fields: dict[str, Any], field: str) -> None:
    """422, and nothing is stored."""
    answer, problem = await send(rest, **fields)
    assert (answer.status, problem["code"]) == (422, "invalid_input"), problem
    assert field in [entry["field"] for entry in problem["errors"]]
    assert (await rest.call("GET", "/api/jobs/stats"))[1]["total"] == 0


async def change(rest: Rest, job: dict[str, Any], *, token: str = "", **body: Any) -> tuple[Any, Any]:
    """Change a job."""
    return await rest.call("PATCH", f"/api/jobs/{job['id']}", json=body, token=token)


async def test_priority_and_due_time_of_a_waiting_job_change(rest: Rest) -> None:
    """Later, at once, and ahead of others."""
    first, second = await rest.submit(), await rest.submit()
    answer, body = await change(rest, second, priority=1)
    assert (answer.status, body["priority"], body["queue_position"]) == (200, 1, 1)
    assert (await rest.claim()).id == second["id"]
    _, body = await change(rest, first, delay_s=3600)
    assert body["status"] == "scheduled"
    at = (datetime.now(UTC) + timedelta(hours=2)).isoformat(timespec="milliseconds")
    _, body = await change(rest, first, run_at=at)
    assert datetime.fromisoformat(body["run_at"]) == datetime.fromisoformat(at)
    _, body = await change(rest, first, delay_s=0)
    assert body["status"] == "queued"
    assert (await rest.claim()).id == first["id"]


async def test_what_runs_or_has_ended_does_not_change(rest: Rest) -> None:
    """409, and the log has no word of it."""
    job = await rest.submit()
    claim = await rest.claim()
    before = await read(rest, job)
    answer, problem = await change(rest, job, priority=1)
    assert (answer.status, problem["code"]) == (409, "illegal_state")
    assert await read(rest, job) == before
    await rest.write(claim, (Verb.COMPLETE, {}))
    assert (await change(rest, job, delay_s=5))[0].status == 409


async def test_only_owner_and_admin_change_a_job(rest: Rest) -> None:
    """To all others it is not there, whatever they send."""
    job = await rest.submit(token=make_token("alice", org="acme"))
    for stranger in (make_token("bob", org="acme", scope="org:read"), make_token("alice"), make_token("bob")):
        answer, problem = await change(rest, job, token=stranger, priority=1)
        assert (answer.status, problem["code"]) == (404, "job_not_found")
        answer, problem = await rest.call("PATCH", f"/api/jobs/{job['id']}", data=b"{", token=stranger)
        assert answer.status == 404
    admin = make_token("root", scope="admin")
    assert (await change(rest, job, token=admin, priority=1))[1]["priority"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"priority": None}, "body"),
        ({"priority": 0}, "priority"),
        ({"priority": "1"}, "priority"),
        ({"delay_s": -1}, "delay_s"),
        ({"run_at": "2030-01-01"}, "run_at"),
        ({"run_at": "9999-01-01T00:00:00Z"}, "run_at"),
        ({"run_at": "2027-01-01T00:00:00Z", "delay_s": 1}, "body"),
        ({"queue": "critical"}, "queue"),
        ({"priority": 1, "owner": "bob"}, "owner"),
    ],
)
async def test_a_wrong_change_is_refused_by_field(rest: Rest, body: dict[str, Any], field: str) -> None:
    """And the job stays as it was."""
    job = await rest.submit()
    answer, problem = await change(rest, job, **body)
    assert (answer.status, problem["code"]) == (422, "invalid_input"), problem
    assert field in [entry["field"] for entry in problem["errors"]]
    assert await read(rest, job) == job
