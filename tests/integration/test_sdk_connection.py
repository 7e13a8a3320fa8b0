"""One connection for a whole client: tokens that expire, servers that say goodbye, and what it leaves behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.integration.sdk_double import GOOD_TOKEN, IMPATIENT, Double, running
from tests.support.timing import eventually, scaled
from tidings import Client, ConnectionState, Event, Watch, errors


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    """Give a running double."""
    async with running() as server:
        yield server


class Tokens:
    """Hands out ``t1``, ``t2`` … and makes each good on the server."""

    def __init__(self, double: Double) -> None:
        self.double = double
        self.given: list[str] = []

    async def __call__(self) -> str:
        """Make the next token."""
        token = f"t{len(self.given) + 1}"
        self.given.append(token)
        self.double.tokens.add(token)
        return token

    def expire(self) -> None:
        """Let all tokens run out that were given so far."""
        self.double.expired.update(self.given)


async def seqs_of_rest(watch: Watch) -> list[int]:
    """Take what is left."""
    async with asyncio.timeout(scaled(10)):
        return [item.seq async for item in watch if isinstance(item, Event)]


async def test_a_fresh_token_is_given_to_the_live_connection_before_the_old_one_expires(
    double: Double,
) -> None:
    """`token:expiring` is answered by `authenticate`, without a reconnect."""
    tokens = Tokens(double)
    async with Client(double.url, tokens, watch_policy=IMPATIENT) as client:
        job = double.add()
        watch = client.watch(job.id)
        await anext(watch)
        await double.say("token:expiring", {"expires_in_s": 0.2})
        assert await double.authenticated.get() == "t2"
        double.append(job, "completed")
        assert await seqs_of_rest(watch) == [2]
        assert len(double.subscribes) == 1


async def test_a_connection_closed_for_its_token_returns_with_a_new_one(double: Double) -> None:
    """`bye {token_expired}`: the watch goes on where it was."""
    tokens = Tokens(double)
    async with Client(double.url, tokens, watch_policy=IMPATIENT) as client:
        job = double.add()
        watch = client.watch(job.id)
        await anext(watch)
        tokens.expire()
        double.progress(job, 3)
        await double.say("bye", {"code": "token_expired"})
        await double.hang_up()
        double.append(job, "completed")
        assert await seqs_of_rest(watch) == [2, 3, 4, 5]
        assert tokens.given == ["t1", "t2"]
        assert watch.transport == "socket.io"
        assert double.requests.count(("GET", "/socket.io/")) == 2


@pytest.mark.parametrize(
    "blocked", [set(), {"websocket"}, {"websocket", "sse"}], ids=["socket.io", "sse", "poll"]
)
async def test_a_refused_token_is_renewed_once_and_the_watch_goes_on(
    double: Double, blocked: set[str]
) -> None:
    """On each transport."""
    double.block = blocked
    tokens = Tokens(double)
    async with Client(double.url, tokens, watch_policy=IMPATIENT) as client:
        job = double.add()
        await client.get(job.id)
        tokens.expire()
        double.append(job, "completed")
        assert await seqs_of_rest(client.watch(job.id)) == [1, 2]
        assert tokens.given == ["t1", "t2"]


@pytest.mark.parametrize(
    "blocked", [set(), {"websocket"}, {"websocket", "sse"}], ids=["socket.io", "sse", "poll"]
)
async def test_a_token_that_stays_refused_ends_the_watch_with_its_error(
    double: Double, blocked: set[str]
) -> None:
    """No endless retries with a token that will not do."""
    double.block = blocked
    calls = 0

    def token() -> str:
        nonlocal calls
        calls += 1
        return "stale"

    double.expired.add("stale")
    job = double.add()
    async with Client(double.url, token, watch_policy=IMPATIENT) as client:
        with pytest.raises(errors.TokenExpired):
            await seqs_of_rest(client.watch(job.id))
    assert calls == 2


async def test_a_fixed_token_that_runs_out_ends_the_watch_with_its_error(double: Double) -> None:
    """There is nothing to renew it with. Closing the client then waits for nobody."""
    client = Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT)
    job = double.add()
    watch = client.watch(job.id)
    await anext(watch)
    await double.say("bye", {"code": "token_expired"})
    await double.hang_up()
    with pytest.raises(errors.TokenExpired):
        await seqs_of_rest(watch)
    async with asyncio.timeout(scaled(1.5)):
        await client.close()


async def test_a_failing_token_callable_is_an_error_of_its_own(double: Double) -> None:
    """It names what went wrong."""

    async def token() -> str:
        raise LookupError("no vault")

    async with Client(double.url, token, watch_policy=IMPATIENT) as client:
        with pytest.raises(errors.Unauthenticated, match="LookupError: no vault"):
            await client.stats()
        with pytest.raises(errors.Unauthenticated, match="LookupError: no vault"):
            await seqs_of_rest(client.watch(double.add().id))


async def test_the_token_is_asked_for_once_by_many_at_once(double: Double) -> None:
    """A hundred calls that are refused together renew it together."""
    tokens = Tokens(double)
    async with Client(double.url, tokens, watch_policy=IMPATIENT) as client:
        await client.stats()
        tokens.expire()
        await asyncio.gather(*(client.stats() for _ in range(50)))
        assert tokens.given == ["t1", "t2"]


async def test_a_draining_server_is_left_when_it_says(double: Double) -> None:
    """The client goes by itself, before it is thrown out, and loses nothing."""
    states: list[str] = []
    async with Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        job = double.add()
        watch = client.watch(job.id, on_connection=states.append)
        await anext(watch)
        rest = asyncio.create_task(seqs_of_rest(watch))
        double.subscribed.get_nowait()
        await double.say("server:draining", {"reconnect_in_ms": 30})
        assert await double.subscribed.get() == "e1:1"
        await eventually(lambda: double.connected == 1)
        double.append(job, "completed")
        assert await rest == [2]
        assert states == ["live", "offline", "live"]


@pytest.mark.parametrize("code", ["slow_consumer", "server_draining", "protocol_error"])
async def test_after_a_bye_the_watch_returns_at_its_position(double: Double, code: str) -> None:
    """Whatever the reason was."""
    async with Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        job = double.add()
        watch = client.watch(job.id)
        await anext(watch)
        await double.say("bye", {"code": code})
        await double.hang_up()
        double.append(job, "completed")
        assert await seqs_of_rest(watch) == [2]
        assert [after for _, after in double.subscribes] == ["0", "e1:1"]


async def test_a_temporary_refusal_of_the_connection_is_tried_again(double: Double) -> None:
    """A server that can't reach its store for a moment."""
    double.refuse_connect = {"code": "store_unavailable", "status": 503, "detail": "soon"}
    async with Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        job = double.add()
        double.append(job, "completed")
        assert await seqs_of_rest(client.watch(job.id)) == [1, 2]


async def test_a_forbidden_connection_ends_the_watch(double: Double) -> None:
    """What no retry can mend is said at once."""
    double.refuse_connect = {"code": "forbidden", "status": 403, "detail": "not you"}
    async with Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        with pytest.raises(errors.Forbidden, match="not you"):
            await seqs_of_rest(client.watch(double.add().id))


async def test_many_watches_come_back_over_one_new_connection(double: Double) -> None:
    """A hundred readers make one attempt, not a hundred."""
    async with Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        jobs = [double.add() for _ in range(100)]
        watches = [client.watch(job.id) for job in jobs]
        await asyncio.gather(*(anext(watch) for watch in watches))
        ends = [asyncio.create_task(seqs_of_rest(watch)) for watch in watches]
        before = double.requests.count(("GET", "/socket.io/"))
        double.drop()
        for job in jobs:
            double.append(job, "completed")
        assert await asyncio.gather(*ends) == [[2]] * 100
        assert double.requests.count(("GET", "/socket.io/")) == before + 1


async def test_cancelling_one_watch_while_dialling_leaves_the_others_their_attempt(double: Double) -> None:
    """The attempt is shared."""
    async with Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        job = double.add()
        double.append(job, "completed")
        first = asyncio.create_task(seqs_of_rest(client.watch(job.id)))
        second = asyncio.create_task(seqs_of_rest(client.watch(job.id)))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == [1, 2]
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_a_client_leaves_no_connection_and_no_task(double: Double) -> None:
    """Whatever state its watches were in. (That no task is left is checked for every test.)"""
    client = Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT)
    open_watches = [client.watch(double.add().id) for _ in range(3)]
    for watch in open_watches:
        await anext(watch)
    for watch in open_watches:
        await watch.aclose()
    await client.close()
    await client.close()
    await eventually(lambda: double.connected == 0)
    with pytest.raises(RuntimeError, match="closed"):
        await client.stats()
    with pytest.raises(RuntimeError, match="closed"):
        await anext(client.watch(double.add().id))


async def test_closing_while_dialling_is_no_cancellation_of_the_caller(double: Double) -> None:
    """A closed client is an error, not a cancelled task."""
    client = Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT)
    watch = client.watch(double.add().id)
    waiting = asyncio.create_task(seqs_of_rest(watch))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await waiting


async def test_no_token_reaches_the_logs(double: Double, caplog: pytest.LogCaptureFixture) -> None:
    """At any level."""
    caplog.set_level(logging.DEBUG)
    async with Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        job = double.add()
        watch = client.watch(job.id)
        await anext(watch)
        double.drop()
        double.append(job, "completed")
        await seqs_of_rest(watch)
    ours = [record for record in caplog.records if record.name.startswith("tidings")]
    assert GOOD_TOKEN not in "".join(record.getMessage() for record in ours)


async def test_the_connection_state_is_told_as_it_changes(double: Double) -> None:
    """`live`, `offline` and `polling`."""
    states: list[ConnectionState] = []
    on_connection: Callable[[Any], None] = states.append
    async with Client(double.url, GOOD_TOKEN, watch_policy=IMPATIENT) as client:
        job = double.add()
        watch = client.watch(job.id, on_connection=on_connection)
        assert watch.connection is ConnectionState.OFFLINE
        await anext(watch)
        double.block = {"websocket", "sse"}
        double.drop()
        rest = asyncio.create_task(seqs_of_rest(watch))
        await eventually(lambda: watch.connection is ConnectionState.POLLING)
        double.append(job, "completed")
        await rest
        assert states == ["live", "offline", "polling"]
