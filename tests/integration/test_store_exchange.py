"""The store's own way of calling: each caller gets its own answer, whatever happens to the connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.support.timing import eventually, scaled
from tidings_tasks.store.exchange import Exchange


@asynccontextmanager
async def open_exchange(
    url: str, *, connections: int = 2, retries: int = 2, timeout_s: float | None = None
) -> AsyncIterator[Exchange]:
    limit_s = timeout_s or scaled(10)
    pool = redis.asyncio.ConnectionPool.from_url(url, socket_timeout=limit_s, client_name="exchange")
    exchange = Exchange(pool, Retry(NoBackoff(), retries), max_connections=connections, timeout_s=limit_s)
    try:
        yield exchange
    finally:
        await exchange.aclose()
        await pool.disconnect()


async def count_connections(exchange: Exchange) -> int:
    found = await exchange.call("CLIENT", "LIST")
    return found.count(b"name=exchange")


async def test_each_of_many_callers_gets_its_own_answer(valkey_url: str) -> None:
    """Two hundred at once share two connections."""
    async with open_exchange(valkey_url) as exchange:
        answers = await asyncio.gather(*(exchange.call("ECHO", number) for number in range(200)))
        assert answers == [b"%d" % number for number in range(200)]
        assert await count_connections(exchange) <= 2


async def test_refusal_is_raised_as_the_librarys_error_and_costs_no_connection(valkey_url: str) -> None:
    """The callers tell refusals apart by their classes."""
    async with open_exchange(valkey_url, connections=1) as exchange:
        number = await exchange.call("CLIENT", "ID")
        with pytest.raises(redis.exceptions.NoScriptError):
            await exchange.call("EVALSHA", "0" * 40, 0)
        with pytest.raises(redis.exceptions.ResponseError, match="unknown command"):
            await exchange.call("NONSENSE")
        assert await exchange.call("CLIENT", "ID") == number


async def test_connection_that_was_closed_meanwhile_is_not_used(valkey_url: str) -> None:
    """The next call opens another one, and is made once."""
    async with open_exchange(valkey_url, connections=1, retries=0) as exchange:
        number = await exchange.call("CLIENT", "ID")
        other = redis.asyncio.Redis.from_url(valkey_url)
        assert await other.execute_command("CLIENT", "KILL", "ID", number) == 1  # type: ignore[no-untyped-call]
        await other.aclose()
        await asyncio.sleep(0)
        assert await exchange.call("PING") == b"PONG"


async def test_call_whose_connection_is_lost_is_made_again(valkey_url: str, key_prefix: str) -> None:
    """As the store's scripts allow."""
    async with open_exchange(valkey_url) as exchange, open_exchange(valkey_url) as other:
        number = await exchange.call("CLIENT", "ID")
        waiting = asyncio.create_task(exchange.call("BLPOP", f"{key_prefix}:list", scaled(8)))

        async def is_waiting() -> bool:
            return b"cmd=blpop" in await other.call("CLIENT", "LIST", "ID", number)

        await eventually(is_waiting)
        await other.call("CLIENT", "KILL", "ID", number)
        await other.call("RPUSH", f"{key_prefix}:list", "found")
        assert (await waiting)[1] == b"found"


async def test_answer_that_nobody_waits_for_is_given_to_nobody_else(valkey_url: str, key_prefix: str) -> None:
    """Neither after a time-out nor after a cancellation."""
    async with open_exchange(valkey_url, connections=1, retries=0, timeout_s=0.05) as exchange:
        with pytest.raises(redis.exceptions.TimeoutError):
            await exchange.call("BLPOP", f"{key_prefix}:nothing", 5)
        assert await exchange.call("ECHO", "one") == b"one"
    async with open_exchange(valkey_url, connections=1) as exchange:
        await exchange.call("PING")
        waiting = asyncio.create_task(exchange.call("BLPOP", f"{key_prefix}:nothing", 5))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await exchange.call("ECHO", "two") == b"two"
