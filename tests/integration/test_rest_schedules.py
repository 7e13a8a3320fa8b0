"""Schedules over REST: made, read, changed, paused, run, looked ahead, and kept from whoever is no admin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import REGISTRY, Rest, make_settings, make_token, serve
from tests.support.timing import eventually
from tidings_server.context import SETTINGS
from tidings_tasks.schedules import Schedule
from tidings_tasks.schedules.scheduler import Scheduler
from tidings_tasks.store import Tenant, commands

ADMIN = make_token("root", scope="admin")
BODY = {
    "name": "nightly",
    "type": "test.rows",
    "input": {"rows": 3},
    "cron": "30 2 * * *",
    "time_zone": "Europe/Berlin",
}


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own, with several shards."""
    async with serve(make_settings(tmp_path, key_prefix, shards=3), valkey_url) as served:
        yield served


async def call(rest: Rest, method: str, path: str = "", **options: Any) -> tuple[int, Any]:
    """Call as an admin; return the status and the decoded body."""
    answer, body = await rest.call(method, f"/api/admin/schedules{path}", token=ADMIN, **options)
    return answer.status, body


async def create(rest: Rest, **fields: Any) -> Any:
    """Make a schedule that must be accepted."""
    status, body = await call(rest, "POST", json=BODY | fields)
    assert status == 201, body
    return body


async def test_a_schedule_is_made_and_read(rest: Rest) -> None:
    """With all its defaults, and when it is due next."""
    answer, made = await rest.call("POST", "/api/admin/schedules", token=ADMIN, json=BODY)
    assert (answer.status, answer.headers["Location"]) == (201, "/api/admin/schedules/nightly")
    assert made | BODY == made
    assert (made["owner"], made["org"], made["overlap"], made["catch_up"]) == ("system", None, "skip", "last")
    assert (made["origin"], made["paused"], made["runs"], made["last_skip"]) == ("api", False, 0, None)
    due = datetime.fromisoformat(made["next_run_at"])
    assert (due.minute, due.hour in (0, 1)) == (30, True)
    assert await call(rest, "GET", "/nightly") == (200, made)


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"cron": "61 * * * *"}, "cron", "value_error"),
        ({"cron": "0 0 30 2 *"}, "cron", "value_error"),
        ({"time_zone": "Mars/Olympus"}, "time_zone", "value_error"),
        ({"cron": None, "time_zone": "UTC"}, "cron", "value_error"),
        ({"type": "test.row"}, "type", "unknown_job_type"),
        ({"input": {"rows": 0}}, "input.rows", "greater_than_equal"),
        ({"input": {"rows": 1, "what": 1}}, "input.what", "extra_forbidden"),
        ({"queue": "nowhere"}, "queue", "unknown_queue"),
        ({"overlap": "maybe"}, "overlap", "enum"),
        ({"name": "a b"}, "name", "string_pattern_mismatch"),
        ({"what": 1}, "what", "extra_forbidden"),
    ],
)
async def test_what_is_wrong_with_a_schedule_is_told_by_field(
    rest: Rest, fields: dict[str, Any], field: str, code: str
) -> None:
    """Before anything is stored."""
    status, problem = await call(rest, "POST", json=BODY | fields)
    assert status == 422, problem
    assert (problem["errors"][0]["field"], problem["errors"][0]["code"]) == (field, code)
    assert await call(rest, "GET") == (200, {"schedules": [], "next_cursor": None})


async def test_a_name_is_given_once(rest: Rest) -> None:
    """Over all shards."""
    await create(rest)
    for owner in ("system", "bob", "carol", "dave"):
        status, problem = await call(rest, "POST", json=BODY | {"owner": owner})
        assert (status, problem["code"]) == (409, "schedule_conflict")


async def test_a_schedule_is_changed(rest: Rest) -> None:
    """Whole, but for its owner; a new timing gives a new due time."""
    made = await create(rest)
    fields = {name: value for name, value in BODY.items() if name != "name"}
    status, changed = await call(rest, "PUT", "/nightly", json=fields | {"input": {"rows": 4}})
    assert (status, changed["input"], changed["next_run_at"]) == (200, {"rows": 4}, made["next_run_at"])
    status, changed = await call(rest, "PUT", "/nightly", json=fields | {"cron": "31 2 * * *"})
    assert (status, changed["next_run_at"] != made["next_run_at"]) == (200, True)
    status, problem = await call(rest, "PUT", "/nightly", json=fields | {"owner": "bob"})
    assert (status, problem["code"]) == (409, "schedule_conflict")
    status, problem = await call(rest, "PUT", "/weekly", json=fields)
    assert (status, problem["code"]) == (404, "schedule_not_found")


async def test_a_schedule_is_paused_and_resumed(rest: Rest) -> None:
    """While it is paused it is due never."""
    made = await create(rest)
    status, paused = await call(rest, "POST", "/nightly/pause")
    assert (status, paused["paused"], paused["next_run_at"]) == (200, True, None)
    status, resumed = await call(rest, "POST", "/nightly/resume")
    assert (status, resumed["paused"], resumed["next_run_at"]) == (200, False, made["next_run_at"])


async def test_a_schedule_is_run_now(rest: Rest) -> None:
    """The job is its owner's, and knows the schedule."""
    await create(rest, owner="alice", org="acme")
    status, run = await call(rest, "POST", "/nightly/run")
    assert status == 202
    assert (run["owner"], run["org"], run["status"], run["input"]) == (
        "alice",
        "acme",
        "queued",
        {"rows": 3},
    )
    assert run["metadata"]["schedule"] == "nightly"
    answer, _ = await rest.call("GET", f"/api/jobs/{run['id']}", token=make_token("alice", org="acme"))
    assert answer.status == 200
    _, after = await call(rest, "GET", "/nightly")
    assert (after["runs"], after["last_job_id"], after["open_jobs"]) == (1, run["id"], [run["id"]])


async def test_the_due_times_to_come_are_told_in_both_times(rest: Rest) -> None:
    """As many as asked for, in UTC and as the clock there shows them."""
    await create(rest)
    status, body = await call(rest, "GET", "/nightly/next?count=3")
    assert (status, body["name"], body["time_zone"], len(body["runs"])) == (
        200,
        "nightly",
        "Europe/Berlin",
        3,
    )
    for entry in body["runs"]:
        assert datetime.fromisoformat(entry["at"]) == datetime.fromisoformat(entry["local"])
        assert entry["local"][11:16] in ("02:30", "03:00")
    for count in ("0", "101", "x"):
        assert (await call(rest, "GET", f"/nightly/next?count={count}"))[0] == 422


async def test_a_schedule_is_deleted(rest: Rest) -> None:
    """Its jobs stay."""
    await create(rest)
    _, run = await call(rest, "POST", "/nightly/run")
    assert (await call(rest, "DELETE", "/nightly"))[0] == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/next"), ("POST", "/pause"), ("POST", "/run")):
        status, problem = await call(rest, method, f"/nightly{path}")
        assert (status, problem["code"]) == (404, "schedule_not_found")
    assert (await rest.call("GET", f"/api/jobs/{run['id']}", token=ADMIN))[0].status == 200


async def test_schedules_are_listed_by_name_over_all_shards(rest: Rest) -> None:
    """In pages."""
    for name, owner in zip("dbac", ("bob", "carol", "dave", "system"), strict=True):
        await create(rest, name=name, owner=owner)
    status, first = await call(rest, "GET", "?limit=3")
    assert (status, [entry["name"] for entry in first["schedules"]]) == (200, ["a", "b", "c"])
    _, second = await call(rest, "GET", f"?limit=3&cursor={first['next_cursor']}")
    assert [entry["name"] for entry in second["schedules"]] == ["d"]
    assert second["next_cursor"] is None
    assert (await call(rest, "GET", "?cursor=%21"))[0] == 422


async def test_what_the_settings_declare_is_changed_there_alone(rest: Rest) -> None:
    """It may still be paused, resumed and run."""
    scheduler = Scheduler(rest.store, REGISTRY, rest.app[SETTINGS].queues)
    await scheduler.declare({"nightly": Schedule.model_validate(BODY)})
    fields = {name: value for name, value in BODY.items() if name != "name"}
    for method, options in (("PUT", {"json": fields}), ("DELETE", {})):
        status, problem = await call(rest, method, "/nightly", **options)
        assert (status, problem["code"]) == (409, "schedule_conflict")
        assert "[schedules.nightly]" in problem["detail"]
    for path, expected in (("/pause", 200), ("/resume", 200), ("/run", 202)):
        assert (await call(rest, "POST", f"/nightly{path}"))[0] == expected


async def test_only_admins_see_or_steer_schedules(rest: Rest) -> None:
    """Everybody else is told so, whether or not there is such a schedule."""
    for method, path in (
        ("GET", ""), ("POST", ""), ("GET", "/nightly"), ("PUT", "/nightly"), ("DELETE", "/nightly"),
        ("GET", "/nightly/next"), ("POST", "/nightly/pause"), ("POST", "/nightly/resume"), ("POST", "/nightly/run"),
    ):  # fmt: skip
        answer, problem = await rest.call(method, f"/api/admin/schedules{path}", json=BODY)
        assert (answer.status, problem["code"]) == (403, "forbidden")
        answer, _ = await rest.call(method, f"/api/admin/schedules{path}", token=None, json=BODY)
        assert answer.status == 401


async def test_a_server_fires_schedules_where_no_worker_of_ours_runs(rest: Rest) -> None:
    """As with the stock dramatiq command."""
    await create(rest, cron=None, every_s=0.1, time_zone="UTC", overlap="queue")
    shard = rest.store.keyspace.shard_of_tenant(Tenant("system"))

    async def fired() -> bool:
        return len(await rest.store.run(commands.list_jobs(shard, Tenant("system")))) >= 2

    await eventually(fired)
    await call(rest, "POST", "/nightly/pause")
    _, text = await rest.call("GET", "/metrics", token=ADMIN)
    assert b'tidings_schedule_runs_total{outcome="created"}' in text
