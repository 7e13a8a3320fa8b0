"""Cancelling by filter: one's own open jobs, counted first where asked, in bounded steps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tidings_server.api import cancelling
from tidings_tasks.store import Verb


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


async def cancel(rest: Rest, *, token: str = "", **body: Any) -> dict[str, Any]:
    """Cancel by filter."""
    answer, told = await rest.call("POST", "/api/jobs/cancel", json=body, token=token)
    assert answer.status == 200, told
    return told


def came_to(matched: int, cancelled: int = 0, cancelling: int = 0) -> dict[str, Any]:
    """An answer of a call that looked at everything."""
    return {"matched": matched, "cancelled": cancelled, "cancelling": cancelling, "next_cursor": None}


async def state_of(rest: Rest, job: dict[str, Any], token: str = "") -> str:
    """The job's state."""
    return str((await rest.call("GET", f"/api/jobs/{job['id']}", token=token))[1]["status"])


async def test_waiting_jobs_end_and_running_ones_are_asked(rest: Rest) -> None:
    """Ended ones are left alone."""
    first = await rest.submit()
    await rest.write(await rest.claim(), (Verb.COMPLETE, {}))
    running = await rest.submit()
    await rest.claim()
    queued, later = await rest.submit(), await rest.submit(delay_s=100)
    assert await cancel(rest, all=True, reason="enough") == came_to(3, cancelled=2, cancelling=1)
    assert [await state_of(rest, job) for job in (first, running, queued, later)] == [
        "completed", "running", "cancelled", "cancelled",
    ]  # fmt: skip
    _, page = await rest.call("GET", f"/api/jobs/{queued['id']}/events")
    assert page["events"][-1]["data"] == {"by": "alice", "reason": "enough"}
    assert await cancel(rest, all=True) == came_to(1, cancelling=1)


async def test_a_dry_run_only_counts(rest: Rest) -> None:
    """Nothing changes."""
    job = await rest.submit()
    assert await cancel(rest, all=True, dry_run=True) == came_to(1)
    assert await state_of(rest, job) == "queued"


async def test_filters_add_up_and_values_are_alternatives(rest: Rest) -> None:
    """As in the list."""
    a = await rest.submit(tags=["x", "y"])
    b = await rest.submit(tags=["y"], queue="critical")
    await rest.submit(delay_s=1000)
    for body, matched in (
        ({"tag": "x"}, 1), ({"tag": ["x", "y"]}, 2), ({"tag": ["y"], "queue": ["critical"]}, 1),
        ({"status": "scheduled"}, 1), ({"status": ["queued", "scheduled"]}, 3), ({"status": ["running"]}, 0),
        ({"type": "test.rows"}, 3), ({"type": ["other"]}, 0), ({"created_after": "2001-01-01T00:00:00Z"}, 3),
        ({"created_before": "2001-01-01T00:00:00Z"}, 0), ({"created_before": b["created_at"], "queue": "critical"}, 0),
    ):  # fmt: skip
        assert (await cancel(rest, dry_run=True, **body))["matched"] == matched, body
    assert await cancel(rest, tag="y", queue="critical") == came_to(1, cancelled=1)
    assert (await state_of(rest, a), await state_of(rest, b)) == ("queued", "cancelled")


async def test_others_jobs_stay_whatever_the_scopes(rest: Rest) -> None:
    """One's own means the token's owner and org, for an admin too."""
    owner = make_token("alice", org="acme")
    job = await rest.submit(token=owner)
    for stranger in (
        make_token("alice"), make_token("bob", org="acme", scope="org:read"), make_token("root", scope="admin"),
    ):  # fmt: skip
        assert await cancel(rest, token=stranger, all=True) == came_to(0)
    assert await state_of(rest, job, owner) == "queued"


async def test_the_work_of_a_call_is_bounded_and_goes_on_by_cursor(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until nothing is left, each job is looked at once, though ended ones leave the list."""
    monkeypatch.setattr(cancelling, "MAX_LOOKED_AT", 4)
    monkeypatch.setattr(cancelling, "_READ_AT_ONCE", 2)
    for number in range(10):
        await rest.submit(tags=["odd"] if number % 2 else [])
    told = [await cancel(rest, tag="odd")]
    while told[-1]["next_cursor"] is not None:
        told.append(await cancel(rest, tag="odd", cursor=told[-1]["next_cursor"]))
    assert len(told) == 3
    assert sum(part["cancelled"] for part in told) == 5
    assert (await cancel(rest, all=True, dry_run=True))["matched"] == 4  # of 5: the first step


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"dry_run": True}, "body"),
        ({"all": False}, "body"),
        ({"all": True, "tag": "x"}, "body"),
        ({"status": []}, "body"),
        ({"status": "completed"}, "body"),
        ({"status": "done"}, "status.0"),
        ({"status": [5]}, "status.0"),
        ({"tag": ""}, "tag.0"),
        ({"tag": ["x"] * 21}, "tag"),
        ({"type": {"a": 1}}, "type"),
        ({"queue": "x" * 129}, "queue.0"),
        ({"created_before": "yesterday"}, "created_before"),
        ({"created_after": "2026-01-01T00:00:00"}, "created_after"),
        ({"all": "yes"}, "all"),
        ({"all": True, "dry_run": 1}, "dry_run"),
        ({"all": True, "reason": "x" * 501}, "reason"),
        ({"all": True, "cursor": "x"}, "cursor"),
        ({"all": True, "owner": "bob"}, "owner"),
    ],
)
async def test_a_wrong_filter_cancels_nothing(rest: Rest, body: dict[str, Any], field: str) -> None:
    """A filter that is misspelt or left out must not mean everything."""
    job = await rest.submit()
    answer, problem = await rest.call("POST", "/api/jobs/cancel", json=body)
    assert (answer.status, problem["code"]) == (422, "invalid_input"), problem
    assert field in [entry["field"] for entry in problem["errors"]]
    assert await state_of(rest, job) == "queued"
