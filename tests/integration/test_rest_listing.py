"""The caller's list: newest first, filtered, paged by a cursor that new jobs do not disturb."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tidings.protocol import JobPage
from tidings_server.api import listing
from tidings_tasks.store import Verb


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


async def list_ids(rest: Rest, query: str) -> list[str]:
    """All pages of a query, which must come in order and without repeats."""
    found: list[str] = []
    cursor = ""
    while True:
        _, body = await rest.call("GET", f"/api/jobs?{query}{cursor}")
        page = JobPage.model_validate(body)
        found += [job.id for job in page.jobs]
        if page.next_cursor is None:
            break
        cursor = f"&cursor={page.next_cursor}"
    assert found == sorted(found, reverse=True)
    assert len(found) == len(set(found))
    return found


async def submit_many(rest: Rest, number: int, **fields: Any) -> list[str]:
    """Submit jobs, and return their ids, newest first."""
    return sorted([(await rest.submit(**fields))["id"] for _ in range(number)], reverse=True)


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 200])
async def test_pages_hold_every_job_once(rest: Rest, limit: int) -> None:
    """Whatever the page's size, and no empty page at the end."""
    made = await submit_many(rest, 7)
    assert await list_ids(rest, f"limit={limit}") == made
    _, body = await rest.call("GET", "/api/jobs?limit=7")
    assert body["next_cursor"] is None


async def test_nothing_to_list_is_an_empty_page(rest: Rest) -> None:
    """Not an error."""
    assert (await rest.call("GET", "/api/jobs"))[1] == {"jobs": [], "next_cursor": None}


async def test_a_job_just_posted_is_in_the_list(rest: Rest) -> None:
    """Reading one's own writes; the same view as the job's own."""
    made = await rest.submit()
    _, body = await rest.call("GET", "/api/jobs")
    assert body["jobs"] == [made]


async def test_new_jobs_do_not_disturb_a_cursor(rest: Rest) -> None:
    """They come before the first page, so the second stays what it was."""
    made = await submit_many(rest, 4)
    _, first = await rest.call("GET", "/api/jobs?limit=2")
    await submit_many(rest, 3)
    _, second = await rest.call("GET", f"/api/jobs?limit=2&cursor={first['next_cursor']}")
    assert [job["id"] for page in (first, second) for job in page["jobs"]] == made


async def test_filters_choose_by_state_type_queue_and_tag(rest: Rest) -> None:
    """Values of one filter are alternatives, repeated or by commas; filters add up."""
    a = await rest.submit(tags=["x", "y"])
    b = await rest.submit(tags=["y"], queue="critical")
    c = await rest.submit(delay_s=1000)
    await rest.write(await rest.claim("reports"), (Verb.COMPLETE, 1))
    newest = sorted([a["id"], b["id"], c["id"]], reverse=True)
    expected = {
        "status=completed": {a["id"]},
        "status=completed,scheduled": {a["id"], c["id"]},
        "status=completed&status=queued": {a["id"], b["id"]},
        "status=failed": set(),
        "type=test.rows": {a["id"], b["id"], c["id"]},
        "type=other": set(),
        "queue=critical": {b["id"]},
        "queue=critical,reports": {a["id"], b["id"], c["id"]},
        "tag=x": {a["id"]},
        "tag=x,y": {a["id"], b["id"]},
        "tag=y&queue=critical": {b["id"]},
        "status=": {a["id"], b["id"], c["id"]},
    }
    for query, ids in expected.items():
        assert await list_ids(rest, query) == [job_id for job_id in newest if job_id in ids], query


async def test_a_time_cuts_older_jobs_off(rest: Rest) -> None:
    """Later than, not at; with any UTC offset."""
    old = await rest.submit()
    moment = datetime.fromisoformat(old["created_at"])
    new = await rest.submit()
    while new["created_at"] == old["created_at"]:
        new = await rest.submit()
    stamp = moment.isoformat().replace("+", "%2B")
    assert old["id"] not in await list_ids(rest, f"created_after={stamp}")
    assert new["id"] in await list_ids(rest, f"created_after={stamp}")
    assert await list_ids(rest, "created_after=2001-01-01T00:00:00Z") != []
    assert await list_ids(rest, "created_after=2999-01-01T00:00:00-05:00") == []


async def test_a_sparse_filter_stops_at_a_bound_and_goes_on_by_cursor(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request reads so many jobs and no more; what is rare is found over several pages."""
    monkeypatch.setattr(listing, "READ_AT_ONCE", 3)
    monkeypatch.setattr(listing, "MAX_READS", 2)
    rare = await rest.submit(tags=["rare"])
    await submit_many(rest, 20)
    _, first = await rest.call("GET", "/api/jobs?tag=rare")
    assert first["jobs"] == []
    assert first["next_cursor"] is not None
    assert await list_ids(rest, "tag=rare") == [rare["id"]]
    assert await list_ids(rest, "tag=none") == []


async def test_a_page_of_large_jobs_is_bounded_in_bytes(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer jobs than asked for, and the rest by the cursor; a job over the bound comes alone."""
    monkeypatch.setattr(listing, "MAX_PAGE_BYTES", 50_000)
    made = await submit_many(rest, 3, metadata={"x": "y" * 20_000})
    large = await rest.submit(metadata={"x": "y" * 100_000})
    _, first = await rest.call("GET", "/api/jobs")
    assert [job["id"] for job in first["jobs"]] == [large["id"]]
    _, second = await rest.call("GET", f"/api/jobs?cursor={first['next_cursor']}")
    assert [job["id"] for job in second["jobs"]] == made[:2]
    assert await list_ids(rest, "") == [large["id"], *made]


async def test_cursors_are_opaque_and_owners_apart(rest: Rest) -> None:
    """A cursor shows no id, and a list no other owner's job."""
    await submit_many(rest, 3)
    await rest.submit(token=make_token("bob"))
    _, body = await rest.call("GET", "/api/jobs?limit=1")
    assert body["jobs"][0]["id"] not in body["next_cursor"]
