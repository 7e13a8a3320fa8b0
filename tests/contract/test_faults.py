"""Workers and submitters on a store whose requests and replies get lost, and which dies: every job ends, and ends once."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import orjson
import pytest

from tests.support.timing import scaled
from tidings.protocol import JobState
from tidings.protocol.errors import StoreUnavailable
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.store import Command, Keyspace, Store, Submission, Verb, Write, WriteCode, commands

from .bench import Bench, spec_of
from .invariants import check_invariants
from .proxy import LossyProxy

T = TypeVar("T")

JOBS, WORKERS, LEASE_MS = 150, 3, 1_000


async def wait_until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, for at most a minute."""
    async with asyncio.timeout(scaled(60)):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


class Crowd:
    """Workers and a submitter, each with a connection pool of its own, who never give up on a call."""

    def __init__(self, url: str, bench: Bench) -> None:
        self.bench = bench
        self.stores = [
            Store(url, bench.keyspace, timeout_s=0.5, lease_s=LEASE_MS / 1000) for _ in range(WORKERS + 1)
        ]
        self.submitted: list[str] = []
        self.completed: dict[str, int] = {}
        """How many completions the store has acknowledged as done, by job: more than one would be one too many."""
        self.failures = 0

    async def close(self) -> None:
        """Close all connections."""
        for store in self.stores:
            await store.aclose()

    async def insist(self, store: Store, command: Command[T]) -> T:
        """Repeat a call until it is answered; the answer is that of the first time it came through."""
        while True:
            try:
                return await store.run(command)
            except StoreUnavailable:
                self.failures += 1
                await asyncio.sleep(0.01)

    async def submit(self) -> None:
        """Store jobs in small batches."""
        for _ in range(JOBS // 5):
            batch = [
                Submission(self.bench.new_id(), spec_of(max_attempts=50), "default", 3) for _ in range(5)
            ]
            await self.insist(self.stores[0], commands.enqueue(0, batch))
            self.submitted += [job.id for job in batch]

    async def work(self, number: int) -> None:
        """Take jobs, report progress, complete them: a bounded number at once, until cancelled."""
        store = self.stores[number]
        writes: list[Write] = []
        for call in itertools.count(1):
            command = commands.step(
                0, worker=f"w{number}", call=call, lease_ms=LEASE_MS, writes=writes, wants=[("default", 4)]
            )
            reply = await self.insist(store, command)
            for write, code in zip(writes, reply.codes, strict=True):
                if write.verb is Verb.COMPLETE and code is not WriteCode.REFUSED:
                    self.completed[write.id] = self.completed.get(write.id, 0) + 1
            writes = [
                Write(claim.id, claim.attempt, n, verb, orjson.dumps({"n": n}))
                for claim in reply.claims
                for n, verb in enumerate((Verb.PROGRESS, Verb.PROGRESS, Verb.LOG, Verb.COMPLETE), 1)
            ]
            if not reply.claims:
                await asyncio.sleep(0.02)

    async def run(self) -> None:
        """Work until every job has ended."""
        workers = [asyncio.create_task(self.work(n), name=f"worker {n}") for n in range(1, WORKERS + 1)]
        try:
            await self.submit()
            await wait_until(self.all_ended)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def check(self) -> None:
        """Assert that every job was stored, completed and acknowledged exactly once, with a whole log."""
        assert len(self.submitted) == JOBS
        assert self.bench.counts() == {JobState.COMPLETED: JOBS}
        check_invariants(self.bench.snapshot())
        assert set(self.completed) <= set(self.submitted)
        assert set(self.completed.values()) == {1}
        for job_id in self.submitted:
            assert self.bench.kinds(job_id).count("completed") == 1

    async def all_ended(self) -> bool:
        """Say whether nothing is left to do."""
        counts = await asyncio.to_thread(self.bench.store.run, commands.count_jobs(0, spec_of().tenant))
        return counts[JobState.COMPLETED] == JOBS


@pytest.fixture
async def lossy(valkey_server: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[LossyProxy]:
    """Give a proxy that loses one request in ten and one reply in ten."""
    proxy = LossyProxy(valkey_server.socket_path, tmp_path / "p.sock")
    proxy.lose_at_random(random.Random(7), rate=0.1)
    async with proxy:
        yield proxy


async def test_lost_requests_and_replies_change_nothing(bench: Bench, lossy: LossyProxy) -> None:
    """One in ten each: every job is stored once and completed once, and nobody is told otherwise."""
    bench.checks = False
    bench.raw.delete(bench.key("clock"))
    crowd = Crowd(lossy.url, bench)
    try:
        await crowd.run()
    finally:
        await crowd.close()
    assert lossy.lost > 20
    crowd.check()


async def test_a_store_that_dies_again_and_again_loses_nothing(
    private_valkey: EmbeddedValkey, keyspace: Keyspace
) -> None:
    """Killed and started on its append-only file while all are at work: what it acknowledged is there."""
    bench = Bench(private_valkey.url, keyspace)
    bench.checks = False
    bench.raw.delete(bench.key("clock"))
    crowd = Crowd(private_valkey.url, bench)
    deaths = 0

    async def kill_and_look() -> bool:
        nonlocal deaths
        if deaths < 4 and len(crowd.completed) >= deaths * JOBS // 5:
            private_valkey.kill()
            private_valkey.start()
            deaths += 1
        try:
            return await crowd.all_ended()
        except StoreUnavailable:
            return False

    killer = asyncio.create_task(wait_until(kill_and_look), name="killer")
    try:
        await crowd.run()
        await killer
    finally:
        killer.cancel()
        await asyncio.gather(killer, return_exceptions=True)
        await crowd.close()
    assert deaths == 4
    crowd.check()
    bench.close()
