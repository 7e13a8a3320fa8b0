"""A job's events as JSON pages and as SSE: the same events, in order, once, from any position."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import Rest, bearer, make_settings, make_token, serve
from tests.support.sse import stream
from tests.support.timing import eventually, scaled
from tidings.protocol import Event, EventPage, Job
from tidings_server.context import RELAY, STREAMS
from tidings_tasks.store import Verb


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


async def run_job(rest: Rest, *, steps: int = 3) -> dict[str, Any]:
    """Submit a job and play it to its end: queued, started, a log a step, completed."""
    made = await rest.submit()
    claim = await rest.claim()
    logs = [(Verb.LOG, {"level": "info", "message": str(step), "fields": {}}) for step in range(steps)]
    await rest.write(claim, *logs, (Verb.COMPLETE, {"rows": steps}))
    return made


async def test_a_page_holds_what_followed_a_position(rest: Rest) -> None:
    """From the beginning, page by page, each event once, done with the last."""
    made = await run_job(rest)
    seen: list[Event] = []
    after, pages = "0", 0
    while True:
        answer, body = await rest.call("GET", f"/api/jobs/{made['id']}/events?after={after}&limit=2")
        assert answer.status == 200
        page = EventPage.model_validate(body)
        assert not page.reset
        seen += page.events
        after, pages = page.position, pages + 1
        if page.done:
            break
        assert page.events[-1].position == page.position
    assert pages == 3
    assert [event.seq for event in seen] == [1, 2, 3, 4, 5, 6]
    assert [event.kind for event in seen] == ["queued", "started", "log", "log", "log", "completed"]


async def test_nothing_new_is_an_empty_page_at_the_same_position(rest: Rest) -> None:
    """At the head of an open job, not done; of an ended one, done."""
    made = await rest.submit()
    _, page = await rest.call("GET", f"/api/jobs/{made['id']}/events?after={made['position']}")
    assert page == {"events": [], "position": made["position"], "done": False, "reset": False, "job": None}
    await rest.call("POST", f"/api/jobs/{made['id']}/cancel")
    _, end = await rest.call("GET", f"/api/jobs/{made['id']}/events")
    _, page = await rest.call("GET", f"/api/jobs/{made['id']}/events?after={end['position']}")
    assert (page["events"], page["done"]) == ([], True)


async def test_a_long_poll_answers_with_the_event(rest: Rest) -> None:
    """As soon as it happens."""
    made = await rest.submit()
    waiting = asyncio.create_task(
        rest.call("GET", f"/api/jobs/{made['id']}/events?after={made['position']}&wait=50")
    )
    await eventually(lambda: len(rest.app[STREAMS]) == 1)
    began_at = time.monotonic()
    await rest.claim()
    _, page = await waiting
    assert [event["kind"] for event in page["events"]] == ["started"]
    assert time.monotonic() - began_at < scaled(5)


async def test_a_long_poll_in_vain_is_an_empty_page(rest: Rest) -> None:
    """After the wait, at the same position."""
    made = await rest.submit()
    _, page = await rest.call("GET", f"/api/jobs/{made['id']}/events?after={made['position']}&wait=0.2")
    assert (page["events"], page["position"], page["done"]) == ([], made["position"], False)


@pytest.mark.parametrize("after", ["zz:1", "9999:0"])
async def test_a_position_of_another_history_is_a_reset(rest: Rest, after: str) -> None:
    """An open job: the snapshot, and the events go on from it."""
    made = await rest.submit()
    _, page = await rest.call("GET", f"/api/jobs/{made['id']}/events?after={after}")
    assert (page["reset"], page["done"], page["events"]) == (True, False, [])
    assert Job.model_validate(page["job"]).id == made["id"]
    assert page["position"] == made["position"]


async def test_a_position_beyond_the_head_is_a_reset(rest: Rest) -> None:
    """A place that this history never reached."""
    made = await rest.submit()
    epoch = made["position"].partition(":")[0]
    _, page = await rest.call("GET", f"/api/jobs/{made['id']}/events?after={epoch}:99")
    assert page["reset"] is True


async def test_a_reset_of_an_ended_job_brings_its_terminal_event(rest: Rest) -> None:
    """So that a waiting client learns the end as an event."""
    made = await run_job(rest)
    _, page = await rest.call("GET", f"/api/jobs/{made['id']}/events?after=zz:1")
    assert (page["reset"], page["done"]) == (True, True)
    assert [event["kind"] for event in page["events"]] == ["completed"]


async def test_envelopes_are_passed_through_as_they_were_stored(rest: Rest) -> None:
    """Nothing is decoded on the way: numbers keep their spelling."""
    made = await rest.submit()
    claim = await rest.claim()
    await rest.write(claim, (Verb.LOG, {"level": "info", "message": "ü", "fields": {"n": 1e22}}))
    async with rest.session.get(f"{rest.url}/api/jobs/{made['id']}/events", headers=bearer()) as answer:
        text = await answer.read()
    stored = await read_stored(rest, made["id"])
    assert all(envelope in text for envelope in stored)


async def read_stored(rest: Rest, job_id: str) -> list[bytes]:
    """The log as it is kept."""
    from tidings_tasks.store import commands

    found = await rest.store.run(commands.read_events(job_id))
    assert found is not None
    return found.events


async def test_a_stream_brings_history_then_news_and_ends_with_the_job(rest: Rest) -> None:
    """`event:` is the kind, `data:` the envelope, `id:` the position."""
    made = await rest.submit()
    async with stream(rest, f"/api/jobs/{made['id']}/events") as sse:
        first = await sse.next()
        assert first is not None
        assert (first.event, first.id) == ("queued", made["position"])
        claim = await rest.claim()
        await rest.write(claim, (Verb.PROGRESS, {"percent": 10.0}))
        await rest.write(claim, (Verb.PROGRESS, {"percent": 20.0}), (Verb.COMPLETE, 1), first=2)
        messages = [first, *await sse.rest()]
    events = [Event.model_validate(message.data) for message in messages]
    assert [message.event for message in messages] == [event.kind for event in events]
    assert [message.id for message in messages] == [event.position for event in events]
    assert events[-1].kind == "completed"
    at = 0
    for event in events:
        assert (event.prev if event.prev is not None else event.seq - 1) <= at < event.seq
        at = event.seq
    headers = sse.response.headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Cache-Control"] == "no-store"
    assert "X-Request-ID" in headers
    assert sse.retry is not None
    await eventually(lambda: len(rest.app[STREAMS]) == 0 and rest.app[RELAY].watched == 0)


async def test_a_stream_resumes_after_the_last_id(rest: Rest) -> None:
    """``Last-Event-ID`` wins over ``after``, as a reconnecting reader needs it."""
    made = await run_job(rest)
    epoch = made["position"].partition(":")[0]
    path = f"/api/jobs/{made['id']}/events"
    async with stream(rest, f"{path}?after={epoch}:1", **{"Last-Event-ID": f"{epoch}:4"}) as sse:
        assert [message.id for message in await sse.rest()] == [f"{epoch}:5", f"{epoch}:6"]
    async with stream(rest, f"{path}?after={epoch}:5") as sse:
        assert [message.id for message in await sse.rest()] == [f"{epoch}:6"]
    async with stream(rest, f"{path}?after={epoch}:6") as sse:
        assert await sse.rest() == []


async def test_a_malformed_last_id_is_refused_by_its_name(rest: Rest) -> None:
    """A problem, not a stream."""
    made = await rest.submit()
    answer, problem = await rest.call(
        "GET", f"/api/jobs/{made['id']}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": "x"}
    )
    assert answer.status == 422
    assert problem["errors"][0]["field"] == "Last-Event-ID"


async def test_a_reset_in_a_stream_comes_before_what_follows_it(rest: Rest) -> None:
    """The snapshot with its position; of an ended job, the terminal event follows and is no repeat."""
    made = await run_job(rest)
    async with stream(rest, f"/api/jobs/{made['id']}/events?after=zz:1") as sse:
        reset, end = await sse.rest()
    assert reset.event == "reset"
    assert sorted(reset.data) == ["job", "position"]
    assert Job.model_validate(reset.data["job"]).status == "completed"
    assert reset.id == reset.data["position"]
    at = int(reset.data["position"].partition(":")[2])
    terminal = Event.model_validate(end.data)
    assert (terminal.prev or terminal.seq - 1) <= at < terminal.seq


async def test_a_stream_ends_with_the_token(rest: Rest) -> None:
    """The reader comes back with a fresh one, or is refused."""
    token = make_token(ttl_s=1.5)
    made = await rest.submit(token=token)
    async with stream(rest, f"/api/jobs/{made['id']}/events", Authorization=f"Bearer {token}") as sse:
        assert [message.event for message in await sse.rest()] == ["queued"]


async def test_a_reader_that_leaves_is_forgotten_at_once(rest: Rest) -> None:
    """Its stream and its subscription end with the connection."""
    made = await rest.submit()
    async with stream(rest, f"/api/jobs/{made['id']}/events") as sse:
        await sse.next()
        assert (len(rest.app[STREAMS]), rest.app[RELAY].watched) == (1, 1)
        sse.response.close()
    await eventually(lambda: len(rest.app[STREAMS]) == 0 and rest.app[RELAY].watched == 0)


async def test_a_silent_stream_beats(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments, so that proxies and readers know that it lives."""
    monkeypatch.setattr("tidings_server.api.events.HEARTBEAT_S", 0.05)
    made = await rest.submit()
    async with stream(rest, f"/api/jobs/{made['id']}/events") as sse:
        await sse.next()
        waiting = asyncio.create_task(sse.next())
        await eventually(lambda: sse.comments >= 3)
        await rest.call("POST", f"/api/jobs/{made['id']}/cancel")
        last = await waiting
        assert last is not None
        assert last.event == "cancelled"


@pytest.mark.parametrize(
    ("accept", "is_stream"),
    [
        ("text/event-stream", True),
        ("application/json, text/event-stream;q=0.5", True),
        ("TEXT/EVENT-STREAM ; charset=utf-8", True),
        ("*/*", False),
        ("application/json", False),
        ("text/event-stream;q=0", False),
        ("", False),
    ],
)
async def test_accept_chooses_between_a_page_and_a_stream(rest: Rest, accept: str, is_stream: bool) -> None:
    """A stream only for who asks for one."""
    made = await run_job(rest)
    answer, _ = await rest.call("GET", f"/api/jobs/{made['id']}/events", headers={"Accept": accept})
    assert (answer.content_type == "text/event-stream") is is_stream


async def test_a_reader_that_takes_nothing_is_cut_off(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream, its subscription and what waits for it are given up; it may resume by its position."""
    monkeypatch.setattr("tidings_server.connection._STUCK_S", 0.3)
    made = await rest.submit()
    claim = await rest.claim()
    for batch in range(6):
        writes = [(Verb.LOG, {"level": "info", "message": "x" * 60_000, "fields": {}}) for _ in range(10)]
        await rest.write(claim, *writes, first=batch * 10 + 1)
    host, port = rest.url.removeprefix("http://").split(":")
    with socket.socket() as mute:
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        mute.connect((host, int(port)))
        head = f"GET /api/jobs/{made['id']}/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
        mute.sendall((head + f"Authorization: {bearer()['Authorization']}\r\n\r\n").encode())
        await eventually(lambda: len(rest.app[STREAMS]) == 1)
        await eventually(lambda: len(rest.app[STREAMS]) == 0 and rest.app[RELAY].watched == 0)


async def test_a_slow_reader_holds_nobody_up_and_misses_nothing(rest: Rest) -> None:
    """A reader that takes nothing for a while gets the whole log afterwards, from the store, not from memory."""
    made = await rest.submit()
    claim = await rest.claim()
    async with stream(rest, f"/api/jobs/{made['id']}/events") as sse:
        await sse.next()
        for batch in range(20):
            writes = [
                (Verb.LOG, {"level": "info", "message": "x" * 2000, "fields": {"n": batch * 50 + n}})
                for n in range(50)
            ]
            await rest.write(claim, *writes, first=batch * 50 + 1)
        await rest.write(claim, (Verb.COMPLETE, None), first=1001)
        messages = await sse.rest()
    assert [message.data["seq"] for message in messages] == list(range(2, 1004))
