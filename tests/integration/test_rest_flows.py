"""Flows over REST: submitted, watched, listed, cancelled and retried by the same calls as any job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import REGISTRY, Rest, make_settings, make_token, serve
from tidings_tasks.flows.planning import register_flow
from tidings_tasks.registry import Registry
from tidings_tasks.store import Verb

STEP = {"type": "test.rows", "input": {"rows": 1}}
FLOW = {
    "steps": [
        STEP | {"name": "a"},
        STEP | {"name": "b", "after": ["a"]},
        STEP | {"name": "c", "after": ["a"]},
    ]
}


@pytest.fixture
async def rest(
    valkey_url: str, key_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rest]:
    """Give an application that knows flows, as every served one does."""
    types = Registry()
    for known in REGISTRY:
        types.add(known)
    register_flow(types)
    monkeypatch.setattr("tests.support.rest.REGISTRY", types)
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


async def submit(rest: Rest, **fields: Any) -> dict[str, Any]:
    """Submit the flow."""
    return await rest.submit(type="flow", input=FLOW, **fields)


async def listed(rest: Rest, query: str, **options: Any) -> list[tuple[str, str]]:
    """List jobs by their steps' names and states."""
    answer, body = await rest.call("GET", f"/api/jobs?{query}", **options)
    assert answer.status == 200, body
    return [(job["step"], job["status"]) for job in body["jobs"]]


async def test_a_flow_is_a_job(rest: Rest) -> None:
    """Its view, status and events are a job's; its steps name it."""
    flow = await submit(rest)
    assert (flow["type"], flow["status"], flow["queue"], flow["parent"]) == ("flow", "running", "flows", None)
    assert flow["input"]["steps"][1] == {
        "name": "b",
        "type": "test.rows",
        "input": {"rows": 1},
        "after": ["a"],
    }
    claim = await rest.claim()
    _, step = await rest.call("GET", f"/api/jobs/{claim.id}")
    assert (step["parent"], step["step"]) == (flow["id"], "a")
    await rest.write(claim, (Verb.COMPLETE, {"n": 1}))
    _, status = await rest.call("GET", f"/api/jobs/{flow['id']}/status")
    assert (status["progress"]["current"], status["progress"]["total"]) == (1, 3)
    for _ in range(2):
        await rest.write(await rest.claim(), (Verb.COMPLETE, None))
    _, result = await rest.call("GET", f"/api/jobs/{flow['id']}/result")
    assert result["steps"]["a"] == {"job_id": claim.id, "status": "completed", "result": {"n": 1}}
    _, page = await rest.call("GET", f"/api/jobs/{flow['id']}/events")
    assert [event["kind"] for event in page["events"]] == ["queued", "started", "progress", "completed"]


async def test_a_flows_steps_are_listed(rest: Rest) -> None:
    """Newest first, as far as they are jobs; with other filters, by pages, and for nobody else."""
    flow, other = await submit(rest), await submit(rest)
    assert await listed(rest, f"parent={flow['id']}") == [("a", "queued")]
    await rest.write(await rest.claim(), (Verb.COMPLETE, None))
    assert await listed(rest, f"parent={flow['id']}") == [
        ("c", "queued"),
        ("b", "queued"),
        ("a", "completed"),
    ]
    assert await listed(rest, f"parent={flow['id']}&status=completed") == [("a", "completed")]
    _, first = await rest.call("GET", f"/api/jobs?parent={flow['id']}&limit=2")
    assert await listed(rest, f"parent={flow['id']}&limit=2&cursor={first['next_cursor']}") == [
        ("a", "completed")
    ]
    assert await listed(rest, f"parent={other['id']}") == [("a", "queued")]
    assert await listed(rest, f"parent={flow['id']}", token=make_token("mallory")) == []
    assert await listed(rest, f"parent={first['jobs'][0]['id']}") == []
    answer, _ = await rest.call("GET", "/api/jobs?parent=x")
    assert answer.status == 422


async def test_a_flow_is_cancelled_and_retried(rest: Rest) -> None:
    """The retry is a whole new flow."""
    flow = await submit(rest, priority=2)
    answer, view = await rest.call("POST", f"/api/jobs/{flow['id']}/cancel")
    assert (answer.status, view["status"]) == (202, "cancelled")
    assert view["result"]["steps"]["b"] == {"job_id": None, "status": "skipped"}
    assert await listed(rest, f"parent={flow['id']}") == [("a", "cancelled")]
    answer, again = await rest.call("POST", f"/api/jobs/{flow['id']}/retry")
    assert (answer.status, again["status"], again["retry_of"]) == (202, "running", flow["id"])
    assert await listed(rest, f"parent={again['id']}") == [("a", "queued")]
    claim = await rest.claim()
    _, step = await rest.call("GET", f"/api/jobs/{claim.id}")
    assert (step["parent"], step["priority"]) == (again["id"], 2)


@pytest.mark.parametrize("claims", [0, 1])
async def test_cancelling_by_filter_cancels_flows_before_their_steps(rest: Rest, claims: int) -> None:
    """A flow all of whose jobs are cancelled is cancelled, and not failed for the loss of a step; all are counted."""
    inner = {"name": "in", "type": "flow", "input": {"chain": [STEP]}}
    flow = await rest.submit(type="flow", input={"group": [inner, STEP]})
    alone = await rest.submit(queue="default")
    for _ in range(claims):
        await rest.claim()
    body = {"all": True, "reason": "enough"}
    _, counted = await rest.call("POST", "/api/jobs/cancel", json=body | {"dry_run": True})
    assert (counted["matched"], counted["cancelled"]) == (5, 0)
    _, done = await rest.call("POST", "/api/jobs/cancel", json=body)
    assert done["matched"] == done["cancelled"] + done["cancelling"] == 5
    for job in (flow, alone):
        _, view = await rest.call("GET", f"/api/jobs/{job['id']}")
        expected = "running" if claims and job is flow else "cancelled"
        assert (view["status"], view["cancel_requested"]) == (expected, job is flow)


async def test_cancelling_some_steps_by_filter_fails_their_flow(rest: Rest) -> None:
    """What the filter does not let through is not cancelled: the flow goes the way of its policy."""
    flow = await submit(rest)
    _, done = await rest.call("POST", "/api/jobs/cancel", json={"type": "test.rows"})
    assert (done["matched"], done["cancelled"]) == (1, 1)
    _, view = await rest.call("GET", f"/api/jobs/{flow['id']}")
    assert (view["status"], view["error"]["message"]) == ("failed", "step a was cancelled")


async def test_a_retried_step_is_a_job_of_its_own(rest: Rest) -> None:
    """It runs outside of the flow, which has ended."""
    flow = await submit(rest)
    claim = await rest.claim()
    await rest.write(claim, (Verb.FAIL, {"code": "c", "type": "T", "message": "m"}))
    _, ended = await rest.call("GET", f"/api/jobs/{flow['id']}")
    assert (ended["status"], ended["error"]["code"]) == ("failed", "child_failed")
    answer, again = await rest.call("POST", f"/api/jobs/{claim.id}/retry")
    assert (answer.status, again["parent"], again["step"]) == (202, None, None)


async def test_a_flow_that_cannot_run_is_refused_whole(rest: Rest) -> None:
    """With the fields of all its steps, and nothing stored."""
    bad = {"group": [STEP, STEP | {"input": {"rows": 0}}, STEP | {"type": "test.rosw"}]}
    answer, body = await rest.call("POST", "/api/jobs", json={"type": "flow", "input": bad})
    assert (answer.status, body["code"]) == (422, "invalid_input")
    assert [entry["field"] for entry in body["errors"]] == ["input.group.1.input.rows", "input.group.2.type"]
    assert await listed(rest, "limit=10") == []


async def test_flows_are_among_the_types_and_in_batches(rest: Rest) -> None:
    """With the schema of their input; a batch may hold some."""
    _, types = await rest.call("GET", "/api/job-types")
    [info] = [info for info in types["job_types"] if info["type"] == "flow"]
    assert {"steps", "chain", "group", "then", "on_failure", "timeout_s"} == set(
        info["input_schema"]["properties"]
    )
    jobs = [{"type": "flow", "input": FLOW}, {"type": "test.rows", "input": {"rows": 1}}]
    answer, body = await rest.call("POST", "/api/jobs/batch", json={"jobs": jobs})
    assert (answer.status, [job["status"] for job in body["jobs"]]) == (202, ["running", "queued"])
