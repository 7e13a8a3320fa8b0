"""Feeds over HTTP: a snapshot, then the lifecycle of all jobs, resumable; progress latest-wins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tests.support.sse import stream
from tests.support.timing import eventually, scaled
from tidings.protocol import FeedPage
from tidings_server.api.pacing import Pacer
from tidings_server.context import RELAY, STREAMS
from tidings_tasks.store import Verb


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


def kinds(page: dict[str, Any]) -> list[str]:
    """The kinds of a page's events."""
    return [entry["event"]["kind"] for entry in page["events"]]


async def test_a_feed_begins_with_the_open_jobs(rest: Rest) -> None:
    """Newest first, and the position from which events follow."""
    first = await rest.submit()
    second = await rest.submit()
    ended = await rest.submit()
    await rest.call("POST", f"/api/jobs/{ended['id']}/cancel")
    _, body = await rest.call("GET", "/api/events")
    page = FeedPage.model_validate(body)
    assert (page.feed, page.events, page.reset) == ("mine", [], False)
    assert {job.id for job in page.jobs or ()} == {first["id"], second["id"]}
    await rest.claim()
    _, body = await rest.call("GET", f"/api/events?after={page.position}")
    assert kinds(body) == ["started"]
    assert body["jobs"] is None
    assert body["events"][0]["position"] == body["position"]
    FeedPage.model_validate(body)


async def test_the_feed_of_somebody_without_jobs_is_empty_and_can_be_waited_on(rest: Rest) -> None:
    """The first job of all is not missed."""
    _, body = await rest.call("GET", "/api/events")
    assert body["jobs"] == []
    waiting = asyncio.create_task(rest.call("GET", f"/api/events?after={body['position']}&wait=50"))
    await eventually(lambda: len(rest.app[STREAMS]) == 1)
    await rest.submit()
    _, page = await waiting
    assert kinds(page) == ["queued"]


async def test_pages_of_a_feed_follow_each_other(rest: Rest) -> None:
    """Limit by limit, each event once."""
    _, body = await rest.call("GET", "/api/events")
    after = body["position"]
    for _ in range(5):
        await rest.submit()
    seen: list[str] = []
    while True:
        _, page = await rest.call("GET", f"/api/events?after={after}&limit=2")
        if not page["events"]:
            break
        seen += [entry["event"]["job_id"] for entry in page["events"]]
        after = page["position"]
    assert len(seen) == len(set(seen)) == 5


async def test_a_position_of_another_history_resets_the_feed(rest: Rest) -> None:
    """The open jobs again, and said to be a reset."""
    made = await rest.submit()
    _, page = await rest.call("GET", "/api/events?after=zz:5")
    assert page["reset"] is True
    assert [job["id"] for job in page["jobs"]] == [made["id"]]


async def test_a_wait_without_news_ends_empty(rest: Rest) -> None:
    """At the same position."""
    await rest.submit()
    _, body = await rest.call("GET", "/api/events")
    _, page = await rest.call("GET", f"/api/events?after={body['position']}&wait=0.2")
    assert (page["events"], page["position"], page["jobs"]) == ([], body["position"], None)


@pytest.mark.parametrize(
    ("feed", "claims", "status"),
    [
        ("org", {}, 403),
        ("org", {"org": "acme"}, 403),
        ("org", {"scope": "org:read"}, 403),
        ("org", {"org": "acme", "scope": "admin"}, 403),
        ("org", {"org": "acme", "scope": "org:read"}, 200),
        ("all", {}, 403),
        ("all", {"org": "acme", "scope": "org:read"}, 403),
        ("all", {"scope": "admin"}, 200),
        ("mine", {}, 200),
    ],
)
async def test_each_feed_has_its_scope(rest: Rest, feed: str, claims: dict[str, str], status: int) -> None:
    """Without it, 403, as a page and as a stream."""
    token = make_token(**claims)  # type: ignore[arg-type]
    answer, body = await rest.call("GET", f"/api/events?feed={feed}", token=token)
    assert answer.status == status
    if status == 403:
        assert body["code"] == "forbidden"
        assert "insufficient_scope" in answer.headers["WWW-Authenticate"]
        answer, _ = await rest.call(
            "GET", f"/api/events?feed={feed}", token=token, headers={"Accept": "text/event-stream"}
        )
        assert answer.status == 403


async def test_org_and_all_feeds_hold_what_their_names_say(rest: Rest) -> None:
    """The org's jobs of all owners; everybody's jobs."""
    a = await rest.submit(token=make_token("alice", org="acme"))
    b = await rest.submit(token=make_token("bob", org="acme"))
    c = await rest.submit(token=make_token("carol", org="globex"))
    reader = make_token("dora", org="acme", scope="org:read")
    _, org = await rest.call("GET", "/api/events?feed=org", token=reader)
    assert {job["id"] for job in org["jobs"]} == {a["id"], b["id"]}
    _, everything = await rest.call("GET", "/api/events?feed=all", token=make_token("root", scope="admin"))
    assert {job["id"] for job in everything["jobs"]} == {a["id"], b["id"], c["id"]}


async def test_a_stream_of_a_feed_goes_on_without_end(rest: Rest) -> None:
    """A snapshot, then events with feed and position; resumed by the last id."""
    made = await rest.submit()
    async with stream(rest, "/api/events?feed=mine") as sse:
        snapshot = await sse.next()
        assert snapshot is not None
        assert (snapshot.event, snapshot.id) == ("snapshot", snapshot.data["position"])
        assert [job["id"] for job in snapshot.data["jobs"]] == [made["id"]]
        claim = await rest.claim()
        started = await sse.next()
        assert started is not None
        assert (started.event, started.data["feed"], started.data["position"]) == (
            "started",
            "mine",
            started.id,
        )
        await rest.write(
            claim, (Verb.LOG, {"level": "info", "message": "x", "fields": {}}), (Verb.COMPLETE, 1)
        )
        completed = await sse.next()
        assert completed is not None
        assert completed.event == "completed"
    async with stream(rest, "/api/events?feed=mine", **{"Last-Event-ID": started.id or ""}) as sse:
        again = await sse.next()
        assert again is not None
        assert (again.event, again.id) == ("completed", completed.id)
    async with stream(rest, "/api/events?feed=mine&after=zz:1") as sse:
        reset = await sse.next()
        assert reset is not None
        assert (reset.event, reset.data["jobs"]) == ("reset", [])
    await eventually(lambda: len(rest.app[STREAMS]) == 0 and rest.app[RELAY].watched == 0)


async def test_progress_in_a_feed_is_the_latest_and_not_numbered(rest: Rest) -> None:
    """A burst comes out as one event without a position."""
    await rest.submit()
    claim = await rest.claim()
    async with stream(rest, "/api/events?feed=mine") as sse:
        await sse.next()
        began_at = time.monotonic()
        for number in range(1, 51):
            await rest.write(claim, (Verb.PROGRESS, {"percent": float(number)}), first=number)
        took_s = time.monotonic() - began_at
        progress = []
        while not progress or progress[-1].data["event"]["data"]["percent"] < 50:
            message = await sse.next()
            assert message is not None
            progress.append(message)
    assert all(message.id is None and message.data["position"] is None for message in progress)
    assert len(progress) <= 2 + took_s / 0.5
    assert took_s < scaled(20)


def envelope(job_id: str, seq: int, kind: str) -> bytes:
    """An envelope as the store makes them."""
    return orjson.dumps({"job_id": job_id, "epoch": "e", "seq": seq, "kind": kind, "data": {}})


async def test_pacing_keeps_the_order_and_the_latest() -> None:
    """Numbered entries pass at once and make held progress of their job pointless."""
    pacer = Pacer()
    assert pacer.pause_s(15) == 15
    assert pacer.take([(None, envelope("A", 2, "progress")), (None, envelope("B", 2, "progress"))]) == []
    assert 0 < pacer.pause_s(15) <= 0.5
    assert pacer.pause_s(0.1) <= 0.1
    ended = ("e:9", envelope("A", 4, "completed"))
    assert pacer.take([(None, envelope("A", 3, "progress")), ended]) == [ended]
    latest = (None, envelope("B", 5, "progress"))
    await asyncio.sleep(pacer.pause_s(15))
    assert pacer.take([(None, envelope("B", 4, "progress")), latest]) == [latest]
    assert pacer.pause_s(15) == 15
