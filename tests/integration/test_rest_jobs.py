"""Submitting, reading, cancelling, retrying and deleting jobs over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tidings.protocol import Job, JobStats, JobTypeInfo, is_job_id, new_job_id
from tidings_server.context import FILES
from tidings_tasks.store import Verb

ERROR = {"code": "boom", "type": "RuntimeError", "message": "it broke"}


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


async def fail(rest: Rest, **fields: Any) -> dict[str, Any]:
    """Submit a job and let it fail."""
    made = await rest.submit(**fields)
    await rest.write(await rest.claim(), (Verb.FAIL, ERROR))
    return made


async def complete(rest: Rest, result: Any, **fields: Any) -> dict[str, Any]:
    """Submit a job and let it complete."""
    made = await rest.submit(**fields)
    await rest.write(await rest.claim(), (Verb.COMPLETE, result))
    return made


async def test_a_submitted_job_is_stored_and_where_location_says(rest: Rest) -> None:
    """202 with the whole job, which can be read at once."""
    answer, made = await rest.call("POST", "/api/jobs", json={"type": "test.rows", "input": {"rows": 3}})
    assert answer.status == 202
    job = Job.model_validate(made)
    assert is_job_id(job.id)
    assert (job.status, job.queue, job.owner, job.org) == ("queued", "reports", "alice", None)
    assert (job.input, job.tags, job.metadata, job.queue_position) == ({"rows": 3}, [], {}, 1)
    read, body = await rest.call("GET", answer.headers["Location"])
    assert read.status == 200
    assert body == made


async def test_everything_that_may_be_asked_for_is_kept(rest: Rest) -> None:
    """Queue, priority, tags and metadata are the caller's; owner and org are the token's."""
    token = make_token("bob", org="acme")
    made = await rest.submit(
        token=token, queue="critical", priority=7, tags=["a", "ü"], metadata={"n": [1, None, {"x": 2.5}]}
    )
    assert (made["queue"], made["priority"], made["tags"]) == ("critical", 7, ["a", "ü"])
    assert made["metadata"] == {"n": [1, None, {"x": 2.5}]}
    assert (made["owner"], made["org"]) == ("bob", "acme")


async def test_a_delayed_job_is_scheduled_and_falls_due_without_any_worker(rest: Rest) -> None:
    """Upkeep moves due jobs, so a poller sees them queued."""
    made = await rest.submit(delay_s=0.3)
    assert made["status"] == "scheduled"
    answer, status = await rest.call("GET", f"/api/jobs/{made['id']}/status?wait=20")
    assert (answer.status, status["status"]) == (200, "queued")


async def test_a_job_may_be_scheduled_for_a_time(rest: Rest) -> None:
    """``run_at`` in the future schedules; in the past, it queues at once."""
    later = datetime.now(UTC) + timedelta(hours=2)
    made = await rest.submit(run_at=later.isoformat())
    assert made["status"] == "scheduled"
    assert abs(datetime.fromisoformat(made["run_at"]) - later) < timedelta(milliseconds=2)
    for past in ("2001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"):
        assert (await rest.submit(run_at=past))["status"] == "queued"


async def test_the_same_key_and_body_give_the_same_job(rest: Rest) -> None:
    """A repeat is recognised however its JSON is written, and says so."""
    body = {"type": "test.rows", "input": {"rows": 3, "title": "x"}}
    turned = '{ "input": {"title": "x", "rows": 3}, "type": "test.rows" }'
    first, made = await rest.call("POST", "/api/jobs", headers={"Idempotency-Key": "k 1"}, json=body)
    again, same = await rest.call(
        "POST",
        "/api/jobs",
        headers={"Idempotency-Key": "k 1", "Content-Type": "application/json"},
        data=turned,
    )
    assert (first.status, again.status) == (202, 202)
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert same["id"] == made["id"]
    assert again.headers["Location"] == first.headers["Location"]


async def test_the_same_key_with_another_body_is_a_conflict(rest: Rest) -> None:
    """422 with its code, and no second job."""
    await rest.submit(headers={"Idempotency-Key": "k"})
    answer, problem = await rest.call(
        "POST",
        "/api/jobs",
        headers={"Idempotency-Key": "k"},
        json={"type": "test.rows", "input": {"rows": 4}},
    )
    assert (answer.status, problem["code"]) == (422, "idempotency_conflict")
    assert await count(rest) == 1


async def test_keys_of_different_owners_do_not_meet(rest: Rest) -> None:
    """A key is an owner's own."""
    mine = await rest.submit(headers={"Idempotency-Key": "k"})
    theirs = await rest.submit(token=make_token("bob"), headers={"Idempotency-Key": "k"})
    orgs = await rest.submit(token=make_token("alice", org="acme"), headers={"Idempotency-Key": "k"})
    assert len({mine["id"], theirs["id"], orgs["id"]}) == 3


async def test_many_repeats_at_once_make_one_job(rest: Rest) -> None:
    """Also when they are stored by one call."""
    answers = await asyncio.gather(
        *(
            rest.call(
                "POST",
                "/api/jobs",
                headers={"Idempotency-Key": "k"},
                json={"type": "test.rows", "input": {"rows": 1}},
            )
            for _ in range(40)
        )
    )
    assert {answer.status for answer, _ in answers} == {202}
    assert len({job["id"] for _, job in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer, _ in answers) == 1
    assert await count(rest) == 1


async def test_many_jobs_at_once_are_all_stored_in_few_calls(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood is joined: far fewer calls of the store than jobs."""
    calls: list[int] = []
    run = rest.store.run

    async def counted(command: Any) -> Any:
        if command.script == "enqueue":
            calls.append(1)
        return await run(command)

    monkeypatch.setattr(rest.store, "run", counted)
    made = await asyncio.gather(*(rest.submit(metadata={"n": number}) for number in range(100)))
    assert len({job["id"] for job in made}) == 100
    assert sorted(job["metadata"]["n"] for job in made) == list(range(100))
    assert len(calls) < 50


async def count(rest: Rest, token: str = "") -> int:
    """How many jobs the caller has."""
    _, body = await rest.call("GET", "/api/jobs/stats", token=token)
    return int(body["total"])


async def test_a_waiting_job_is_cancelled_at_once(rest: Rest) -> None:
    """Cancelled, by whom and why; cancelling again is a 409."""
    made = await rest.submit()
    answer, job = await rest.call("POST", f"/api/jobs/{made['id']}/cancel", json={"reason": "no need"})
    assert (answer.status, job["status"]) == (202, "cancelled")
    _, page = await rest.call("GET", f"/api/jobs/{made['id']}/events")
    assert page["events"][-1]["data"] == {"by": "alice", "reason": "no need"}
    again, problem = await rest.call("POST", f"/api/jobs/{made['id']}/cancel")
    assert (again.status, problem["code"]) == (409, "illegal_state")


async def test_a_running_job_is_asked_to_stop(rest: Rest) -> None:
    """The job stays running, with the request noted; asking twice changes nothing."""
    made = await rest.submit()
    await rest.claim()
    for _ in range(2):
        answer, job = await rest.call("POST", f"/api/jobs/{made['id']}/cancel")
        assert (answer.status, job["status"], job["cancel_requested"]) == (202, "running", True)
    _, page = await rest.call("GET", f"/api/jobs/{made['id']}/events")
    assert [event["kind"] for event in page["events"]] == ["queued", "started", "cancelling"]


async def test_a_failed_job_is_retried_as_a_new_one(rest: Rest) -> None:
    """Same type, input, queue and tags; ``retry_of`` names the first."""
    first = await fail(rest, tags=["t"], metadata={"m": 1}, priority=2)
    answer, job = await rest.call("POST", f"/api/jobs/{first['id']}/retry")
    assert answer.status == 202
    assert job["id"] != first["id"]
    assert answer.headers["Location"] == f"/api/jobs/{job['id']}"
    same = ("type", "input", "queue", "priority", "tags", "metadata", "owner", "org")
    assert {name: job[name] for name in same} == {name: first[name] for name in same}
    assert (job["retry_of"], job["status"]) == (first["id"], "queued")


async def test_a_retry_may_carry_a_key_too(rest: Rest) -> None:
    """A button that is pressed twice makes one retry."""
    first = await fail(rest)
    calls = [
        await rest.call("POST", f"/api/jobs/{first['id']}/retry", headers={"Idempotency-Key": "r"})
        for _ in range(2)
    ]
    assert calls[0][1]["id"] == calls[1][1]["id"]
    assert calls[1][0].headers["Idempotent-Replayed"] == "true"


async def test_only_failed_and_cancelled_jobs_are_retried(rest: Rest) -> None:
    """A waiting and a completed job answer 409, and nothing is made."""
    waiting = await rest.submit(delay_s=100)
    done = await complete(rest, 1)
    for made in (waiting, done):
        answer, problem = await rest.call("POST", f"/api/jobs/{made['id']}/retry")
        assert (answer.status, problem["code"]) == (409, "illegal_state")
    assert await count(rest) == 2


async def test_a_deleted_job_is_gone_for_good(rest: Rest) -> None:
    """204, then 404 everywhere; an open job cannot be deleted."""
    made = await rest.submit()
    answer, problem = await rest.call("DELETE", f"/api/jobs/{made['id']}")
    assert (answer.status, problem["code"]) == (409, "illegal_state")
    await rest.call("POST", f"/api/jobs/{made['id']}/cancel")
    answer, body = await rest.call("DELETE", f"/api/jobs/{made['id']}")
    assert (answer.status, body) == (204, b"")
    for method, path in (
        ("GET", ""),
        ("GET", "/status"),
        ("GET", "/events"),
        ("GET", "/result"),
        ("DELETE", ""),
    ):
        gone, problem = await rest.call(method, f"/api/jobs/{made['id']}{path}")
        assert (gone.status, problem["code"]) == (404, "job_not_found")
    assert await count(rest) == 0


@pytest.mark.parametrize("result", [{"rows": 3, "ü": [1.5, None]}, None, 0, "text", []])
async def test_the_result_is_answered_as_it_was_returned(rest: Rest, result: Any) -> None:
    """Any JSON, alone."""
    made = await complete(rest, result)
    answer, body = await rest.call("GET", f"/api/jobs/{made['id']}/result")
    assert answer.status == 200
    assert answer.content_type == "application/json"
    assert body == result


async def test_a_large_result_is_referred_to(rest: Rest) -> None:
    """The job names where its result is, and there it is."""
    made = await complete(rest, "x" * 100_000)
    _, job = await rest.call("GET", f"/api/jobs/{made['id']}")
    assert job["result"] is None
    _, body = await rest.call("GET", job["result_ref"])
    assert body == "x" * 100_000


async def test_a_job_without_a_result_answers_why(rest: Rest) -> None:
    """409 for a job that is not over, has failed or was cancelled."""
    failed = await fail(rest)
    waiting = await rest.submit()
    answer, problem = await rest.call("GET", f"/api/jobs/{waiting['id']}/result")
    assert (answer.status, problem["code"]) == (409, "illegal_state")
    assert "queued" in problem["detail"]
    await rest.call("POST", f"/api/jobs/{waiting['id']}/cancel")
    answer, problem = await rest.call("GET", f"/api/jobs/{waiting['id']}/result")
    assert (answer.status, "cancelled" in problem["detail"]) == (409, True)
    answer, problem = await rest.call("GET", f"/api/jobs/{failed['id']}/result")
    assert (answer.status, "boom" in problem["detail"]) == (409, True)


async def complete_with_file(rest: Rest, owner: str = "alice") -> tuple[dict[str, Any], str]:
    """Complete a job whose result is a new file; return the job and the file's id."""
    made = await rest.submit()
    claim = await rest.claim()
    with rest.app[FILES].create(owner, None, "report.pdf", "application/pdf") as writer:
        writer.write(b"%PDF")
        info = writer.finish().info
    await rest.write(claim, (Verb.COMPLETE, {"file": info.model_dump(mode="json")}))
    return made, info.id


async def test_a_result_that_is_a_file_redirects_to_it(rest: Rest) -> None:
    """Browsers get the file, programs that ask for JSON get the JSON."""
    made, file_id = await complete_with_file(rest)
    answer, _ = await rest.call("GET", f"/api/jobs/{made['id']}/result")
    assert (answer.status, answer.headers["Location"]) == (303, f"/api/files/{file_id}")
    answer, content = await rest.call("GET", answer.headers["Location"])
    assert (answer.status, content) == (200, b"%PDF")
    answer, body = await rest.call(
        "GET", f"/api/jobs/{made['id']}/result", headers={"Accept": "application/json"}
    )
    assert (answer.status, body["file"]["id"]) == (200, file_id)


@pytest.mark.parametrize(
    "result",
    [
        {"file": {"id": "X", "url": "https://evil.example/"}},
        {"file": {"id": "01JD8Z5T6N8Q4W3E2R1T0Y9V8K", "url": "https://evil.example/"}},
        {"file": {"url": "//evil.example"}},
        {"file": "x"},
        {"file": {"id": [1], "url": 2}},
    ],
)
async def test_a_result_cannot_send_anybody_elsewhere(rest: Rest, result: Any) -> None:
    """Only our own files are redirected to."""
    made = await complete(rest, result)
    answer, body = await rest.call("GET", f"/api/jobs/{made['id']}/result")
    assert (answer.status, body) == (200, result)


async def test_deleting_a_job_deletes_the_file_it_made_and_no_other(rest: Rest) -> None:
    """The result's file goes; an older file that the result names, or another owner's, stays."""
    made, file_id = await complete_with_file(rest)
    await rest.call("DELETE", f"/api/jobs/{made['id']}")
    assert rest.app[FILES].find(file_id) is None

    made, file_id = await complete_with_file(rest, owner="bob")
    await rest.call("DELETE", f"/api/jobs/{made['id']}")
    assert rest.app[FILES].find(file_id) is not None

    with rest.app[FILES].create("alice", None, "input.csv", "text/csv") as writer:
        info = writer.finish().info
    made = await complete(rest, {"file": info.model_dump(mode="json")})
    await rest.call("DELETE", f"/api/jobs/{made['id']}")
    assert rest.app[FILES].find(info.id) is not None


async def test_stats_count_the_callers_own_jobs(rest: Rest) -> None:
    """Every state is present; the time is now; other owners' jobs are not counted."""
    await fail(rest)
    await rest.submit(delay_s=100)
    await rest.submit()
    await rest.submit(token=make_token("bob"))
    answer, body = await rest.call("GET", "/api/jobs/stats")
    assert answer.status == 200
    stats = JobStats.model_validate(body)
    assert stats.mode == "standalone"
    assert {state: n for state, n in stats.counts.items() if n} == {"failed": 1, "scheduled": 1, "queued": 1}
    assert len(stats.counts) == 8
    assert stats.total == 3
    assert abs(stats.timestamp.timestamp() - time.time()) < 5


async def test_job_types_are_listed_with_their_schema(rest: Rest) -> None:
    """What a form needs: name, schema, queue, time-out, retry policy."""
    _, body = await rest.call("GET", "/api/job-types")
    (info,) = [JobTypeInfo.model_validate(entry) for entry in body["job_types"]]
    assert (info.type, info.queue) == ("test.rows", "reports")
    assert info.input_schema["properties"]["rows"]["maximum"] == 1000
    assert info.description


async def test_jobs_live_in_the_shard_of_their_tenant(
    valkey_url: str, key_prefix: str, tmp_path: Path
) -> None:
    """With several shards every call finds them, and upkeep reaches all."""
    async with serve(make_settings(tmp_path, key_prefix, shards=3), valkey_url) as rest:
        shards = set()
        for owner in ("alice", "bob", "carol", "dora", "emil", "fritz"):
            token = make_token(owner)
            made = await rest.submit(token=token, delay_s=0.05)
            shards.add(made["id"].rpartition("s")[2])
            path = f"/api/jobs/{made['id']}"
            _, status = await rest.call("GET", f"{path}/status?wait=20", token=token)
            assert status["status"] == "queued"
            _, feed = await rest.call("GET", "/api/events", token=token)
            assert [job["id"] for job in feed["jobs"]] == [made["id"]]
            assert (await rest.call("POST", f"{path}/cancel", token=token))[0].status == 202
            _, page = await rest.call("GET", "/api/jobs", token=token)
            assert [job["status"] for job in page["jobs"]] == ["cancelled"]
            assert (await rest.call("POST", f"{path}/retry", token=token))[0].status == 202
            assert await count(rest, token) == 2
        assert len(shards) > 1


async def test_an_id_of_no_job_is_not_found(rest: Rest) -> None:
    """A well-formed id that names nothing, here or in a shard that does not exist."""
    for job_id in (new_job_id(0), new_job_id(7), new_job_id(99999)):
        for method, path in (("GET", ""), ("GET", "/events?wait=1"), ("POST", "/cancel"), ("POST", "/retry")):
            answer, problem = await rest.call(method, f"/api/jobs/{job_id}{path}")
            assert (answer.status, problem["code"]) == (404, "job_not_found")
