"""Ownership on every path: what is somebody else's answers exactly as what does not exist (P4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tidings.protocol import new_job_id
from tidings_server.api.routes import ROUTES
from tidings_server.context import FILES
from tidings_tasks.files import new_file_id
from tidings_tasks.store import Verb

JOB_ROUTES = [(route.method, route.path) for route in ROUTES if route.path.startswith("/api/jobs/{id}")]
ADMINS = [(route.method, route.path) for route in ROUTES if route.path.startswith("/api/admin/")]
GUARDED = [(route.method, route.path) for route in ROUTES if not route.is_public]


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


def told(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem without what names this one request."""
    return {name: value for name, value in problem.items() if name != "request_id"}


@pytest.mark.parametrize(
    ("other", "org"),
    [
        ("bob", None),
        ("alice", None),
        ("alice", "globex"),
        ("bob", "acme"),
        ("acme/alice", None),
        ("alice", "acme/x"),
    ],
)
async def test_another_users_token_finds_no_job_anywhere(rest: Rest, other: str, org: str | None) -> None:
    """Each route answers what it answers for a job that never was, and changes nothing."""
    owner = make_token("alice", org="acme")
    made = await rest.submit(token=owner)
    stranger = make_token(other, org=org)
    assert len(JOB_ROUTES) == 8
    for method, path in JOB_ROUTES:
        there, problem = await rest.call(method, path.replace("{id}", made["id"]), token=stranger)
        nowhere, nothing = await rest.call(method, path.replace("{id}", new_job_id(0)), token=stranger)
        assert (there.status, problem["code"]) == (404, "job_not_found"), (method, path)
        assert (nowhere.status, told(nothing)) == (404, told(problem))
        kept = {name: value for name, value in there.headers.items() if name not in ("X-Request-ID", "Date")}
        assert kept == {n: v for n, v in nowhere.headers.items() if n not in ("X-Request-ID", "Date")}
    sse, problem = await rest.call(
        "GET", f"/api/jobs/{made['id']}/events", token=stranger, headers={"Accept": "text/event-stream"}
    )
    assert (sse.status, problem["code"]) == (404, "job_not_found")
    _, after = await rest.call("GET", f"/api/jobs/{made['id']}", token=owner)
    assert after == made


async def test_an_ended_job_is_as_hidden_as_an_open_one(rest: Rest) -> None:
    """Results, retries and deletions of others' jobs are refused too."""
    made = await rest.submit()
    await rest.write(await rest.claim(), (Verb.COMPLETE, {"secret": 1}))
    for method, path in JOB_ROUTES:
        answer, _ = await rest.call(method, path.replace("{id}", made["id"]), token=make_token("bob"))
        assert answer.status == 404
    assert (await rest.call("GET", f"/api/jobs/{made['id']}/result"))[1] == {"secret": 1}


async def test_lists_counts_and_feeds_hold_only_the_callers_own(rest: Rest) -> None:
    """What is listed without an id is the caller's alone."""
    mine = await rest.submit()
    for other in (make_token("bob"), make_token("alice", org="acme"), make_token("bob", org="alice")):
        await rest.submit(token=other)
    _, page = await rest.call("GET", "/api/jobs")
    assert [job["id"] for job in page["jobs"]] == [mine["id"]]
    assert (await rest.call("GET", "/api/jobs/stats"))[1]["total"] == 1
    _, feed = await rest.call("GET", "/api/events?feed=mine")
    assert [job["id"] for job in feed["jobs"]] == [mine["id"]]


async def test_a_foreign_cursor_opens_nothing(rest: Rest) -> None:
    """A cursor only says where to go on in the caller's own list."""
    for _ in range(3):
        await rest.submit(token=make_token("bob"))
    _, page = await rest.call("GET", "/api/jobs?limit=1", token=make_token("bob"))
    _, mine = await rest.call("GET", f"/api/jobs?cursor={page['next_cursor']}")
    assert mine == {"jobs": [], "next_cursor": None}


async def test_org_readers_see_their_orgs_jobs_and_change_none(rest: Rest) -> None:
    """``org:read`` is for reading, in the same org."""
    made = await rest.submit(token=make_token("alice", org="acme"))
    reader = make_token("carol", org="acme", scope="org:read")
    for path in ("", "/status", "/events"):
        assert (await rest.call("GET", f"/api/jobs/{made['id']}{path}", token=reader))[0].status == 200
    for method, path in (("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")):
        assert (await rest.call(method, f"/api/jobs/{made['id']}{path}", token=reader))[0].status == 404
    for stranger in (
        make_token("carol", org="globex", scope="org:read"),
        make_token("carol", scope="org:read"),
    ):
        assert (await rest.call("GET", f"/api/jobs/{made['id']}", token=stranger))[0].status == 404


async def test_admins_see_and_end_every_job(rest: Rest) -> None:
    """And a retry by an admin stays its owner's job."""
    made = await rest.submit(token=make_token("alice", org="acme"))
    admin = make_token("root", scope="admin")
    assert (await rest.call("GET", f"/api/jobs/{made['id']}", token=admin))[0].status == 200
    assert (await rest.call("POST", f"/api/jobs/{made['id']}/cancel", token=admin))[0].status == 202
    _, again = await rest.call("POST", f"/api/jobs/{made['id']}/retry", token=admin)
    assert (again["owner"], again["org"]) == ("alice", "acme")
    assert (await rest.call("DELETE", f"/api/jobs/{made['id']}", token=admin))[0].status == 204


async def test_files_are_as_private_as_jobs(rest: Rest) -> None:
    """A stranger's download answers as a file that is not there."""
    with rest.app[FILES].create("alice", "acme", "a.txt", "text/plain") as writer:
        writer.write(b"secret")
        file_id = writer.finish().info.id
    allowed = [
        make_token("alice", org="acme"),
        make_token("carol", org="acme", scope="org:read"),
        make_token("r", scope="admin"),
    ]
    for token in allowed:
        assert (await rest.call("GET", f"/api/files/{file_id}", token=token))[1] == b"secret"
    for token in (make_token("bob", org="acme"), make_token("alice"), make_token("alice", org="globex")):
        there, problem = await rest.call("GET", f"/api/files/{file_id}", token=token)
        nowhere, nothing = await rest.call("GET", f"/api/files/{new_file_id()}", token=token)
        assert (there.status, problem["code"]) == (404, "file_not_found")
        assert (nowhere.status, told(nothing)) == (404, told(problem))


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_no_guarded_route_answers_without_a_good_token(rest: Rest, method: str, path: str) -> None:
    """Missing, expired, tampered, unsigned or foreign: 401 with its code, on every route that is not public."""
    place = path.replace("{id}", new_job_id(0)).replace("{name}", "reports")
    good = make_token()
    expired = make_token(ttl_s=-1)
    head, _, signature = good.rpartition(".")
    cases = [
        (None, "unauthenticated"),
        ("rubbish", "unauthenticated"),
        (expired, "token_expired"),
        (f"{head}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}", "unauthenticated"),
        ("eyJhbGciOiJub25lIn0." + head.split(".")[1] + ".", "unauthenticated"),
        (make_token(secret="another-secret-of-somebody-elses-server"), "unauthenticated"),
        ("x" * 9000, "unauthenticated"),
    ]
    for token, code in cases:
        answer, problem = await rest.call(method, place, token=token)
        assert (answer.status, problem["code"]) == (401, code), (method, path)
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="tidings"')
        assert answer.content_type == "application/problem+json"
        assert token is None or token not in str(problem)


@pytest.mark.parametrize(("method", "path"), ADMINS)
@pytest.mark.parametrize("scope", [None, "org:read", "Admin", "administrator"])
async def test_operators_calls_are_forbidden_to_all_others(
    rest: Rest, method: str, path: str, scope: str | None
) -> None:
    """403, whatever the call would have found, and before a body is read."""
    made = await rest.submit()
    for job_id in (made["id"], new_job_id(0), "rubbish"):
        place = path.replace("{id}", job_id).replace("{name}", "reports")
        answer, problem = await rest.call(method, place, token=make_token(org="acme", scope=scope), data=b"{")
        assert (answer.status, problem["code"]) == (403, "forbidden"), (method, place)
    assert (await rest.call("GET", f"/api/jobs/{made['id']}"))[1] == made


async def test_a_token_in_the_query_is_no_token(rest: Rest) -> None:
    """It would stand in logs and histories."""
    answer, _ = await rest.call("GET", f"/api/jobs?token={make_token()}", token=None)
    assert answer.status == 401


async def test_public_routes_need_no_token(rest: Rest) -> None:
    """Health and the document are for everybody."""
    public = [route for route in ROUTES if route.is_public]
    assert {route.path for route in public} == {
        "/health", "/health/live", "/health/ready", "/health/detailed", "/metrics", "/api/openapi.json",
        "/api/health", "/api/health/live", "/api/health/ready", "/api/health/detailed",
    }  # fmt: skip
    for route in public:
        answer, _ = await rest.call(route.method, route.path, token=None)
        assert answer.status in (200, 503), route.path
