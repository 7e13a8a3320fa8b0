"""One question to every shard of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from tidings_tasks.store import Command, Store

__all__ = ["over_shards"]

T = TypeVar("T")

_AT_ONCE = 16


async def over_shards(store: Store, make: Callable[[int], Command[T]]) -> list[T]:
    """Run a command on every shard and return the answers, by shard."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def ask(shard: int) -> T:
        async with gate:
            return await store.run(make(shard))

    return await asyncio.gather(*(ask(shard) for shard in range(store.keyspace.shards)))
