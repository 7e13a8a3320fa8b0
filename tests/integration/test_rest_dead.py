"""Dead letters over REST: listed and grouped over all shards, retried once, purged; counted before anything is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tidings.protocol import new_job_id, shard_of
from tidings_server.api.admin import dead, dead_bulk
from tidings_tasks.store import Verb, commands
from tidings_tasks.store.limits import QueueState

ADMIN = make_token("root", scope="admin")
OWNERS = [(name, org) for name in ("alice", "bob", "carol", "dave") for org in (None, "acme", "globex")]


@pytest.fixture(params=[1, 3], ids=["one shard", "three shards"])
async def rest(
    request: pytest.FixtureRequest, valkey_url: str, key_prefix: str, tmp_path: Path
) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    settings = make_settings(tmp_path, key_prefix, shards=request.param)
    async with serve(settings, valkey_url) as served:
        yield served


async def bury(
    rest: Rest, owner: tuple[str, str | None] = ("alice", None), *, message: str = "it broke", **fields: Any
) -> dict[str, Any]:
    """Let a job of this owner fail for good."""
    made = await rest.submit(token=make_token(owner[0], org=owner[1]), **fields)
    claim = await rest.claim(made["queue"], shard_of(made["id"]))
    assert claim.id == made["id"]
    error = {"code": "exception", "type": "ValueError", "message": message}
    extra = orjson.dumps({"dead": True, "stack": f"Traceback\nValueError: {message}"}).decode()
    await rest.write(claim, (Verb.LOG, {"level": "info", "message": "on it"}))
    await rest.write(claim, (Verb.FAIL, error), first=2, extra=extra)
    return made


async def ask(rest: Rest, path: str, *, status: int = 200, **body: Any) -> Any:
    """Ask as an operator; with a body it is a POST."""
    method = "POST" if body or path.endswith("retry") else "GET"
    answer, told = await rest.call(
        method, f"/api/admin/dead{path}", token=ADMIN, **({"json": body} if body else {})
    )
    assert answer.status == status, told
    return told


async def list_ids(rest: Rest, query: str = "") -> list[str]:
    """All pages of a list."""
    found: list[str] = []
    cursor = ""
    while True:
        page = await ask(rest, f"?{query}{cursor}")
        found += [job["id"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            assert len(found) == len(set(found))
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def test_nothing_dead_is_an_empty_answer(rest: Rest) -> None:
    """Everywhere."""
    assert await ask(rest, "") == {"jobs": [], "next_cursor": None}
    assert await ask(rest, "/groups") == {"groups": []}
    assert (await ask(rest, "/retry", all=True, dry_run=False))["matched"] == 0
    assert (await ask(rest, "/purge", all=True, dry_run=False))["matched"] == 0


@pytest.mark.parametrize("limit", [1, 2, 5, 12, 200])
async def test_pages_hold_every_dead_letter_once_latest_first(rest: Rest, limit: int) -> None:
    """Of all owners and shards, in one order."""
    buried = [(await bury(rest, owner))["id"] for owner in OWNERS]
    listed = await list_ids(rest, f"limit={limit}")
    assert sorted(listed) == sorted(buried)
    died = [(await ask(rest, f"/{job_id}"))["job"]["finished_at"] for job_id in listed]
    assert died == sorted(died, reverse=True)


async def test_a_page_of_large_jobs_is_bounded_in_bytes(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rest comes by the cursor, each once."""
    monkeypatch.setattr(dead, "MAX_PAGE_BYTES", 50_000)
    buried = [(await bury(rest, owner, metadata={"x": "y" * 20_000}))["id"] for owner in OWNERS[:7]]
    assert len((await ask(rest, ""))["jobs"]) == 2
    assert sorted(await list_ids(rest)) == sorted(buried)


async def test_filters_choose_by_queue_type_and_fingerprint(rest: Rest) -> None:
    """All must hold."""
    a = await bury(rest, message="one")
    b = await bury(rest, ("bob", "acme"), message="two", queue="critical")
    (print_a,) = {
        group["fingerprint"]
        for group in (await ask(rest, "/groups"))["groups"]
        if group["queue"] == "reports"
    }
    for query, ids in (
        ("queue=reports", [a["id"]]), ("queue=critical", [b["id"]]), ("type=test.rows", [b["id"], a["id"]]),
        ("type=other", []), (f"fingerprint={print_a}", [a["id"]]), (f"fingerprint={print_a}&queue=critical", []),
        ("fingerprint=nothing", []), ("queue=nowhere", []),
    ):  # fmt: skip
        assert await list_ids(rest, query) == ids, query


async def test_the_whole_error_is_shown_to_operators_alone(rest: Rest) -> None:
    """With traceback and log; the owner sees the error without either."""
    job = await bury(rest)
    told = await ask(rest, f"/{job['id']}")
    assert told["job"]["stack"] == "Traceback\nValueError: it broke"
    assert told["job"]["error"] == {"code": "exception", "type": "ValueError", "message": "it broke"}
    assert [event["kind"] for event in told["events"]] == ["queued", "started", "log", "failed"]
    assert (await ask(rest, ""))["jobs"] == [told["job"]]
    _, own = await rest.call("GET", f"/api/jobs/{job['id']}")
    assert own["error"] == told["job"]["error"]
    assert "stack" not in own


async def test_what_is_no_dead_letter_is_not_found(rest: Rest) -> None:
    """A live job, no job, and no id at all."""
    live = await rest.submit()
    for job_id in (live["id"], new_job_id(0), "rubbish", "%00"):
        assert (await ask(rest, f"/{job_id}", status=404))["code"] == "job_not_found"
    assert (await ask(rest, f"/{live['id']}/retry", status=409))["code"] == "illegal_state"
    assert (await ask(rest, f"/{new_job_id(0)}/retry", status=404))["code"] == "job_not_found"


async def test_errors_that_look_the_same_are_one_group(rest: Rest) -> None:
    """Over all shards, the largest first; numbers in a message make no other error."""
    for number, owner in enumerate(OWNERS[:5]):
        await bury(rest, owner, message=f"row {number} is bad")
    await bury(rest, message="something else")
    groups = (await ask(rest, "/groups"))["groups"]
    assert [group["count"] for group in groups] == [5, 1]
    assert groups[0]["message"] == "row 0 is bad"
    assert (groups[0]["queue"], groups[0]["type"], groups[0]["code"], groups[0]["error_type"]) == (
        "reports", "test.rows", "exception", "ValueError",
    )  # fmt: skip
    assert groups[0]["first_seen"] <= groups[0]["last_seen"]


async def test_a_retry_is_one_new_job_of_the_same_owner(rest: Rest) -> None:
    """However often it is asked for, and also at the same time; then the letter is no dead one any more."""
    job = await bury(rest, ("alice", "acme"), tags=["t"], priority=2)
    answers = await asyncio.gather(*(ask(rest, f"/{job['id']}/retry", status=202) for _ in range(4)))
    assert len({again["id"] for again in answers}) == 1
    again = answers[0]
    assert (again["retry_of"], again["owner"], again["org"]) == (job["id"], "alice", "acme")
    assert [again[name] for name in ("type", "input", "queue", "priority", "tags")] == [
        job[name] for name in ("type", "input", "queue", "priority", "tags")
    ]
    assert await list_ids(rest) == []
    assert (await ask(rest, f"/{job['id']}/retry", status=202))["id"] == again["id"]
    _, kept = await rest.call("GET", f"/api/jobs/{job['id']}", token=ADMIN)
    assert kept["status"] == "failed"


async def test_many_are_counted_first_then_retried(rest: Rest) -> None:
    """A dry run, the default, changes nothing."""
    buried = [(await bury(rest, owner))["id"] for owner in OWNERS]
    other = await bury(rest, queue="critical")
    for body in ({"queue": "reports"}, {"queue": "reports", "dry_run": True}):
        assert await ask(rest, "/retry", **body) == {
            "matched": len(buried), "retried": 0, "refused": 0, "next_cursor": None,
        }  # fmt: skip
    assert len(await list_ids(rest)) == len(buried) + 1
    told = await ask(rest, "/retry", queue="reports", dry_run=False)
    assert told == {"matched": len(buried), "retried": len(buried), "refused": 0, "next_cursor": None}
    assert await list_ids(rest) == [other["id"]]
    assert (await ask(rest, "/retry", queue="reports", dry_run=False))["matched"] == 0


async def test_what_a_queue_refuses_stays_dead(rest: Rest) -> None:
    """And is told."""
    job = await bury(rest)
    for shard in range(rest.store.keyspace.shards):
        await rest.store.run(commands.set_queue_state(shard, "reports", QueueState.DRAINING))
    assert (await ask(rest, f"/{job['id']}/retry", status=503))["code"] == "queue_draining"
    told = await ask(rest, "/retry", all=True, dry_run=False)
    assert (told["matched"], told["retried"], told["refused"]) == (1, 0, 1)
    assert await list_ids(rest) == [job["id"]]


async def test_a_purge_deletes_what_was_counted(rest: Rest) -> None:
    """Record, log and all; a dry run nothing."""
    buried = [await bury(rest, owner) for owner in OWNERS[:4]]
    assert (await ask(rest, "/purge", type="test.rows"))["matched"] == 4
    assert len(await list_ids(rest)) == 4
    assert await ask(rest, "/purge", type="test.rows", dry_run=False) == {
        "matched": 4, "purged": 4, "next_cursor": None,
    }  # fmt: skip
    assert await list_ids(rest) == []
    assert (await ask(rest, "/groups"))["groups"] == []
    for job in buried:
        assert (await rest.call("GET", f"/api/jobs/{job['id']}", token=ADMIN))[0].status == 404


@pytest.mark.parametrize("action", ["retry", "purge"])
async def test_the_work_of_a_call_is_bounded_and_goes_on_by_cursor(
    rest: Rest, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Each letter is taken once."""
    monkeypatch.setattr(dead_bulk, "PAGE_JOBS", 2)
    monkeypatch.setattr(dead_bulk, "MAX_PAGES", 2)
    for owner in OWNERS:
        await bury(rest, owner)
    told = [await ask(rest, f"/{action}", all=True, dry_run=False)]
    while told[-1]["next_cursor"] is not None:
        told.append(await ask(rest, f"/{action}", all=True, dry_run=False, cursor=told[-1]["next_cursor"]))
    assert len(told) >= 3
    assert max(part["matched"] for part in told) <= 4
    assert sum(part["matched"] for part in told) == len(OWNERS)
    assert await list_ids(rest) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"dry_run": False}, "body"),
        ({"all": False, "dry_run": False}, "body"),
        ({"all": True, "queue": "reports"}, "body"),
        ({"queue": ""}, "queue"),
        ({"queue": ["reports"]}, "queue"),
        ({"fingerprint": "x" * 129}, "fingerprint"),
        ({"dry_run": "no"}, "dry_run"),
        ({"all": True, "dry_run": False, "cursor": "x"}, "cursor"),
        ({"all": True, "dry_run": False, "cursor": "LTE6eA"}, "cursor"),
        ({"quue": "reports", "dry_run": False}, "quue"),
    ],
)
async def test_a_wrong_filter_does_nothing(rest: Rest, body: dict[str, Any], field: str) -> None:
    """A filter that is misspelt or left out must not mean everything."""
    job = await bury(rest)
    for action in ("/retry", "/purge"):
        problem = await ask(rest, action, status=422, **body)
        assert field in [entry["field"] for entry in problem["errors"]], problem
    assert await list_ids(rest) == [job["id"]]


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=201", "limit"), ("cursor=x", "cursor"), ("queue=", "queue"), ("owner=bob", "owner"),
     ("cursor=MTp4", "cursor"), ("cursor=" + "A" * 200, "cursor"), ("queue=a&queue=b", "queue")],
)  # fmt: skip
async def test_a_wrong_query_is_refused_by_parameter(rest: Rest, query: str, field: str) -> None:
    """As everywhere."""
    problem = await ask(rest, f"?{query}", status=422)
    assert field in [entry["field"] for entry in problem["errors"]]
