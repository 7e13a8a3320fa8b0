"""Batches over REST: all or none, errors by place, one key for all, charged by job."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tidings.protocol.bulk import MAX_BATCH
from tidings_tasks.store import submissions

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


def rows(number: Any = 3, **fields: Any) -> dict[str, Any]:
    """One job of a batch."""
    return {"type": "test.rows", "input": {"rows": number}} | fields


async def send(rest: Rest, jobs: Any, *, key: str = "", token: str = "") -> tuple[Any, Any]:
    """Send a batch."""
    headers = {"Idempotency-Key": key} if key else {}
    return await rest.call("POST", "/api/jobs/batch", json={"jobs": jobs}, headers=headers, token=token)


async def count(rest: Rest, token: str = "") -> int:
    """How many jobs the caller has."""
    return int((await rest.call("GET", "/api/jobs/stats", token=token))[1]["total"])


async def test_the_jobs_come_back_in_the_order_given(rest: Rest) -> None:
    """Each as GET would answer it."""
    answer, body = await send(rest, [rows(1), rows(2, priority=1), rows(3, delay_s=60, tags=["t"])])
    assert answer.status == 202
    assert [job["input"]["rows"] for job in body["jobs"]] == [1, 2, 3]
    assert [job["status"] for job in body["jobs"]] == ["queued", "queued", "scheduled"]
    for job in body["jobs"]:
        assert (await rest.call("GET", f"/api/jobs/{job['id']}"))[1] == job


async def test_the_largest_batch_is_stored_whole(rest: Rest) -> None:
    """A thousand jobs, each charged to the caller."""
    answer, body = await send(rest, [rows(n + 1) for n in range(MAX_BATCH)])
    assert answer.status == 202
    assert [job["input"]["rows"] for job in body["jobs"]] == list(range(1, MAX_BATCH + 1))
    assert await count(rest) == MAX_BATCH
    limit, left = (int(answer.headers[f"RateLimit-{name}"]) for name in ("Limit", "Remaining"))
    assert limit - left <= MAX_BATCH
    assert left < limit - MAX_BATCH * 0.9


@pytest.mark.parametrize(
    ("jobs", "field"),
    [
        ([], "jobs"),
        ("x", "jobs"),
        (None, "jobs"),
        ([rows()] * (MAX_BATCH + 1), "jobs"),
        ([rows(), 5], "jobs.1"),
        ([rows(), {}], "jobs.1.type"),
        ([rows()] * 17 + [rows("many")], "jobs.17.input.rows"),
        ([rows(), rows(type="nothing.here")], "jobs.1.type"),
        ([rows(), rows(queue="nowhere")], "jobs.1.queue"),
        ([rows(), rows(priority=77)], "jobs.1.priority"),
        ([rows(owner="bob")], "jobs.0.owner"),
        ([rows(run_at="2999-01-01T00:00:00Z")], "jobs.0.run_at"),
    ],
)
async def test_one_wrong_job_refuses_the_batch_by_its_place(rest: Rest, jobs: Any, field: str) -> None:
    """422 that names the job and the field, and nothing is stored."""
    answer, problem = await send(rest, jobs)
    assert (answer.status, problem["code"]) == (422, "invalid_input"), problem
    assert field in [entry["field"] for entry in problem["errors"]]
    assert await count(rest) == 0


async def test_errors_of_many_jobs_are_told_at_once_and_bounded(rest: Rest) -> None:
    """Every wrong field, at most fifty."""
    _, problem = await send(rest, [rows(0), rows(), rows("x", queue="nowhere"), rows()])
    assert [entry["field"] for entry in problem["errors"]] == ["jobs.0.input.rows", "jobs.2.input.rows"]
    _, problem = await send(rest, [rows(0)] * 200)
    assert len(problem["errors"]) == 50


@pytest.mark.parametrize("text", [b"", b"{", b'{"jobs": [' + b"[" * 60_000, b'{"jobs": [{"type": 1e999}]}'])
async def test_what_is_no_json_is_a_bad_request(rest: Rest, text: bytes) -> None:
    """As for a single job."""
    answer, problem = await rest.call("POST", "/api/jobs/batch", data=text, headers=JSON)
    assert (answer.status, problem["code"]) == (400, "bad_request")


async def test_the_body_is_bounded(rest: Rest) -> None:
    """All jobs together have the bound of one body."""
    text = orjson.dumps({"jobs": [rows(metadata={"x": "y" * 60_000})] * 20})
    answer, problem = await rest.call("POST", "/api/jobs/batch", data=io.BytesIO(text), headers=JSON)
    assert (answer.status, problem["code"]) == (413, "payload_too_large")


async def test_a_repeat_with_the_key_is_the_same_batch(rest: Rest) -> None:
    """The same jobs, again and again and at the same time; another body is a conflict."""
    jobs = [rows(1), rows(1), rows(2)]
    answers = await asyncio.gather(*(send(rest, jobs, key="k") for _ in range(5)))
    assert {answer.status for answer, _ in answers} == {202}
    ids = {tuple(job["id"] for job in body["jobs"]) for _, body in answers}
    assert len(ids) == 1
    assert len(set(*ids)) == 3
    assert sum("Idempotent-Replayed" in answer.headers for answer, _ in answers) == 4
    for other in (jobs[:2], [rows(9), *jobs[1:]], [*jobs, rows(4)]):
        answer, problem = await send(rest, other, key="k")
        assert (answer.status, problem["code"]) == (422, "idempotency_conflict")
    assert await count(rest) == 3
    # The same key is free for a single job and for another owner.
    assert (await rest.submit(headers={"Idempotency-Key": "k"}))["id"] not in set(*ids)
    assert (await send(rest, jobs, key="k", token=make_token("bob")))[0].status == 202


async def test_a_full_queue_refuses_the_whole_batch(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the jobs for another queue."""
    monkeypatch.setattr(submissions, "MAX_QUEUE_LENGTH", 2)
    answer, problem = await send(rest, [rows(), rows(queue="critical"), rows(), rows()])
    assert (answer.status, problem["code"]) == (429, "queue_full")
    assert await count(rest) == 0


async def test_each_job_is_charged(valkey_url: str, key_prefix: str, tmp_path: Path) -> None:
    """A batch takes as many submissions as it has jobs, or none of them is stored."""
    settings = make_settings(tmp_path, key_prefix, submissions_per_minute=10)
    async with serve(settings, valkey_url) as rest:
        assert (await send(rest, [rows()] * 6))[0].headers["RateLimit-Remaining"] == "4"
        answer, problem = await send(rest, [rows()] * 6)
        assert (answer.status, problem["code"]) == (429, "rate_limited")
        assert int(answer.headers["Retry-After"]) <= 60
        _, problem = await send(rest, [rows()] * 11, token=make_token("bob"))
        assert (problem["code"], problem["errors"][0]["field"]) == ("invalid_input", "jobs")
        assert (await count(rest), await count(rest, make_token("bob"))) == (6, 0)


async def test_a_batch_is_its_callers_own(rest: Rest) -> None:
    """Owner and org are the token's."""
    _, body = await send(rest, [rows(), rows()], token=make_token("alice", org="acme"))
    assert {(job["owner"], job["org"]) for job in body["jobs"]} == {("alice", "acme")}
    for job in body["jobs"]:
        assert (await rest.call("GET", f"/api/jobs/{job['id']}"))[0].status == 404


async def test_key_and_media_type_are_checked_as_for_one(rest: Rest) -> None:
    """Before anything is stored."""
    answer, _ = await send(rest, [rows()], key="x" * 256)
    assert answer.status == 422
    answer, _ = await rest.call("POST", "/api/jobs/batch", data=orjson.dumps({"jobs": [rows()]}))
    assert answer.status == 415
    assert await count(rest) == 0
