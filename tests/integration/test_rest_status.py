"""Polling a status: ETags, 304, and waiting for a change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.rest import Rest, make_settings, make_token, serve
from tests.support.timing import eventually, scaled
from tidings.protocol import JobStatus
from tidings_server.context import RELAY, STREAMS
from tidings_tasks.store import Verb


@pytest.fixture
async def rest(valkey_url: str, key_prefix: str, tmp_path: Path) -> AsyncIterator[Rest]:
    """A served application of this test's own."""
    async with serve(make_settings(tmp_path, key_prefix), valkey_url) as served:
        yield served


async def test_the_status_is_compact_and_says_when_to_ask_again(rest: Rest) -> None:
    """Exactly the contract's fields and headers."""
    made = await rest.submit()
    answer, body = await rest.call("GET", f"/api/jobs/{made['id']}/status")
    status = JobStatus.model_validate(body)
    assert list(body) == [
        "id", "type", "status", "progress", "attempt", "position", "queue_position", "eta_s", "slow",
        "waiting_for", "updated_at",
    ]  # fmt: skip
    assert (status.status, status.queue_position) == ("queued", 1)
    assert answer.headers["ETag"] == f'W/"{status.position}"'
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert answer.headers["Vary"] == "Authorization, Accept"
    assert 1 <= int(answer.headers["Retry-After"]) <= 5


async def test_an_ended_job_needs_no_more_polling(rest: Rest) -> None:
    """No ``Retry-After`` on a terminal answer, and no waiting either."""
    made = await rest.submit()
    await rest.call("POST", f"/api/jobs/{made['id']}/cancel")
    began_at = time.monotonic()
    answer, body = await rest.call("GET", f"/api/jobs/{made['id']}/status?wait=55")
    assert time.monotonic() - began_at < scaled(5)
    assert (answer.status, body["status"]) == (200, "cancelled")
    assert "Retry-After" not in answer.headers
    same, _ = await rest.call(
        "GET", f"/api/jobs/{made['id']}/status?wait=55", headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert same.status == 304


@pytest.mark.parametrize("form", ['W/"{0}"', '"{0}"', '"x", W/"{0}"', "*", 'W/"{0}" , "y"'])
async def test_what_is_known_already_is_not_sent(rest: Rest, form: str) -> None:
    """Lists, strong and weak tags and ``*`` match by weak comparison."""
    made = await rest.submit()
    known = form.format(made["position"])
    answer, body = await rest.call("GET", f"/api/jobs/{made['id']}/status", headers={"If-None-Match": known})
    assert (answer.status, body) == (304, b"")
    assert answer.headers["ETag"] == f'W/"{made["position"]}"'
    assert answer.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("form", ['W/"x:1"', "{0}", '"', "", 'W/"{0}x"', "'{0}'"])
async def test_what_is_not_known_is_sent(rest: Rest, form: str) -> None:
    """Another tag, or none that can be read."""
    made = await rest.submit()
    known = form.format(made["position"])
    answer, _ = await rest.call("GET", f"/api/jobs/{made['id']}/status", headers={"If-None-Match": known})
    assert answer.status == 200


async def test_every_event_changes_the_etag(rest: Rest) -> None:
    """Progress too: the ETag is the position."""
    made = await rest.submit()
    seen = {made["position"]}
    claim = await rest.claim()
    seen.add((await rest.call("GET", f"/api/jobs/{made['id']}/status"))[1]["position"])
    await rest.write(claim, (Verb.PROGRESS, {"percent": 50.0}))
    _, body = await rest.call("GET", f"/api/jobs/{made['id']}/status")
    assert body["progress"]["percent"] == 50
    assert len(seen | {body["position"]}) == 3


async def begin_wait(rest: Rest, path: str, **headers: str) -> asyncio.Task[object]:
    """Begin a long-poll, and return when it is waiting on the server."""
    before = len(rest.app[STREAMS])
    task = asyncio.create_task(rest.call("GET", path, headers=headers))
    await eventually(lambda: task.done() or len(rest.app[STREAMS]) > before)
    assert not task.done(), task.result()
    return task


@pytest.mark.parametrize("with_tag", [True, False])
async def test_waiting_ends_with_a_change(rest: Rest, with_tag: bool) -> None:
    """The answer comes with the change, long before the time is over."""
    made = await rest.submit()
    tag = {"If-None-Match": f'W/"{made["position"]}"'} if with_tag else {}
    waiting = await begin_wait(rest, f"/api/jobs/{made['id']}/status?wait=50", **tag)
    began_at = time.monotonic()
    await rest.claim()
    answer, body = await waiting  # type: ignore[misc]
    assert (answer.status, body["status"]) == (200, "running")
    assert time.monotonic() - began_at < scaled(5)
    assert len(rest.app[STREAMS]) == 0
    assert rest.app[RELAY].watched == 0


async def test_waiting_in_vain_answers_that_nothing_changed(rest: Rest) -> None:
    """304 for who knows the state, the state for who does not."""
    made = await rest.submit()
    path = f"/api/jobs/{made['id']}/status?wait=0.3"
    same, _ = await rest.call("GET", path, headers={"If-None-Match": f'W/"{made["position"]}"'})
    assert same.status == 304
    answer, body = await rest.call("GET", path)
    assert (answer.status, body["position"]) == (200, made["position"])


async def test_who_is_behind_is_answered_at_once(rest: Rest) -> None:
    """Waiting begins only when there is nothing new to tell."""
    made = await rest.submit()
    await rest.claim()
    began_at = time.monotonic()
    answer, body = await rest.call(
        "GET", f"/api/jobs/{made['id']}/status?wait=50", headers={"If-None-Match": f'W/"{made["position"]}"'}
    )
    assert (answer.status, body["status"]) == (200, "running")
    assert time.monotonic() - began_at < scaled(5)


async def test_a_job_that_is_deleted_while_watched_is_not_found(rest: Rest) -> None:
    """The wait ends with 404, not with an error."""
    made = await rest.submit()
    waiting = await begin_wait(rest, f"/api/jobs/{made['id']}/status?wait=50")
    await rest.call("POST", f"/api/jobs/{made['id']}/cancel")
    answer, body = await waiting  # type: ignore[misc]
    assert (answer.status, body["status"]) == (200, "cancelled")


async def test_waiting_never_outlives_the_token(rest: Rest) -> None:
    """The answer comes when the token ends."""
    token = make_token(ttl_s=1.5)
    made = await rest.submit(token=token)
    began_at = time.monotonic()
    answer, _ = await rest.call("GET", f"/api/jobs/{made['id']}/status?wait=50", token=token)
    assert time.monotonic() - began_at < scaled(10)
    assert answer.status == 200


async def test_waits_are_bounded_per_caller(valkey_url: str, key_prefix: str, tmp_path: Path) -> None:
    """One more than allowed is refused with 429; other callers are not."""
    async with serve(make_settings(tmp_path, key_prefix, max_streams=2), valkey_url) as rest:
        made = await rest.submit()
        path = f"/api/jobs/{made['id']}/status?wait=50"
        waiting = [await begin_wait(rest, path) for _ in range(2)]
        answer, problem = await rest.call("GET", path)
        assert (answer.status, problem["code"]) == (429, "rate_limited")
        assert int(answer.headers["Retry-After"]) >= 1
        others = await rest.submit(token=make_token("bob"))
        answer, _ = await rest.call(
            "GET", f"/api/jobs/{others['id']}/status?wait=0.1", token=make_token("bob")
        )
        assert answer.status == 200
        await rest.call("POST", f"/api/jobs/{made['id']}/cancel")
        assert {answer.status for answer, _ in await asyncio.gather(*waiting)} == {200}  # type: ignore[misc]


async def test_a_client_that_leaves_is_forgotten_at_once(rest: Rest) -> None:
    """The wait, its stream and its subscription end with the connection."""
    made = await rest.submit()
    waiting = await begin_wait(rest, f"/api/jobs/{made['id']}/status?wait=50")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await eventually(lambda: len(rest.app[STREAMS]) == 0 and rest.app[RELAY].watched == 0)
