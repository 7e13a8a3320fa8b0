"""A call of the store that is cancelled while it connects leaves no connection behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.timing import scaled
from tidings_tasks.store import Keyspace, Store, Tenant, commands


@pytest.mark.parametrize("answers", [0, 1, 2])
async def test_a_cancelled_connect_is_closed(tmp_path: Path, answers: int) -> None:
    """A store that falls silent in the middle of the greeting: the client that gives up hangs up."""
    silent, hung_up = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(answers):
            await reader.read(65_536)
            writer.write(b"+OK\r\n")
        await reader.read(65_536)
        silent.set()
        while await reader.read(65_536):
            pass
        hung_up.set()
        writer.close()

    path = tmp_path / "s"
    server = await asyncio.start_unix_server(serve, path)
    store = Store(f"unix://{path}", timeout_s=60)
    call = asyncio.create_task(store.run(commands.count_jobs(0, Tenant("alice"))))
    async with asyncio.timeout(scaled(10)):
        await silent.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await hung_up.wait()
    await store.aclose()
    server.close()


async def test_a_call_of_the_store_heeds_its_cancellation_at_any_moment(
    valkey_url: str, keyspace: Keyspace
) -> None:
    """Wherever in the call the cancellation comes, the task ends cancelled."""
    for turns in range(40):
        store = Store(valkey_url, keyspace)
        task = asyncio.create_task(store.run(commands.step(0, worker="w", call=1, lease_ms=1000)))
        for _ in range(turns):
            await asyncio.sleep(0)
        was_done = task.done()
        task.cancel()
        await asyncio.wait([task])
        await store.aclose()
        assert was_done or task.cancelled(), turns
