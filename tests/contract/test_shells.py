"""The store's two shells: lost replies, lost stores, and stores that are not ours."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import redis
from redis.exceptions import RedisError, ResponseError

from tests.support.timing import eventually_sync, scaled
from tidings.protocol import JobState
from tidings.protocol.errors import StoreUnavailable
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.store import (
    Command,
    Keyspace,
    Outcome,
    Store,
    StoreMismatch,
    SyncStore,
    Verb,
    WriteCode,
    commands,
)
from tidings_tasks.store.store import FORMAT

from .bench import ALICE, LEASE_MS, Bench
from .proxy import Fault, LossyProxy

T = TypeVar("T")

TIMEOUT_S = 0.4


@pytest.fixture
def own_bench(private_valkey: EmbeddedValkey, keyspace: Keyspace) -> Iterator[Bench]:
    """Give a bench on a Valkey that the test may break."""
    made = Bench(private_valkey.url, keyspace)
    yield made
    made.close()


@pytest.fixture
async def proxy(valkey_server: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[LossyProxy]:
    """Give a proxy in front of the shared store."""
    async with LossyProxy(valkey_server.socket_path, tmp_path / "p.sock") as made:
        yield made


class Shells:
    """Both shells behind the proxy, called alike."""

    def __init__(self, url: str, keyspace: Keyspace) -> None:
        self.asynchronous = Store(url, keyspace, timeout_s=TIMEOUT_S)
        self.synchronous = SyncStore(url, keyspace, timeout_s=TIMEOUT_S)

    async def run(self, kind: str, command: Command[T]) -> T:
        """Run a command on one of them."""
        if kind == "async":
            return await self.asynchronous.run(command)
        return await asyncio.to_thread(self.synchronous.run, command)


@pytest.fixture
async def shells(proxy: LossyProxy, keyspace: Keyspace) -> AsyncIterator[Shells]:
    """Give both shells behind the proxy, connected."""
    made = Shells(proxy.url, keyspace)
    for kind in ("async", "sync"):
        await made.run(kind, commands.count_jobs(0, ALICE))
    yield made
    await made.asynchronous.aclose()
    made.synchronous.close()


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_call_whose_reply_is_lost_takes_effect_once(
    bench: Bench, proxy: LossyProxy, shells: Shells, kind: str, fault: Fault
) -> None:
    """The client repeats it by itself, and gets the answer that it would have had."""

    async def lose(command: Command[T]) -> T:
        before = proxy.calls
        proxy.arm(fault)
        reply = await shells.run(kind, command)
        assert proxy.calls >= before + 2, "the call was not repeated"
        return reply

    submission = bench.submission(idempotency_key="k", fingerprint="f")
    [enqueued] = await lose(commands.enqueue(0, [submission]))
    assert (enqueued.outcome, enqueued.id) == (Outcome.CREATED, submission.id)
    assert bench.kinds(submission.id) == ["queued"]

    wants = [("default", 1)]
    [claim] = (await lose(commands.step(0, worker="w", call=1, lease_ms=LEASE_MS, wants=wants))).claims
    assert (claim.id, claim.attempt) == (submission.id, 1)

    write = bench.make_write(claim, Verb.PROGRESS, {"percent": 1})
    reply = await lose(commands.step(0, worker="w", call=2, lease_ms=LEASE_MS, writes=[write]))
    assert reply.codes == [WriteCode.REPEATED]
    assert await lose(commands.renew(0, [(claim.id, 1)], lease_ms=LEASE_MS)) == [WriteCode.DONE]

    outcome, state, _ = await lose(commands.cancel(claim.id, by=b'"alice"'))
    assert (outcome, state) == ("cancelling", JobState.RUNNING)
    write = bench.make_write(claim, Verb.COMPLETE, 1)
    await lose(commands.step(0, worker="w", call=3, lease_ms=LEASE_MS, writes=[write]))
    assert bench.kinds(claim.id) == ["queued", "started", "progress", "cancelling", "completed"]
    await lose(commands.delete(claim.id))
    assert bench.counts() == {}


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_an_unreachable_store_is_said_to_be_so_in_time(
    proxy: LossyProxy, shells: Shells, kind: str
) -> None:
    """After a bounded number of attempts, with the error that means 503."""
    await proxy.__aexit__()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await shells.run(kind, commands.count_jobs(0, ALICE))
    assert time.monotonic() - began < scaled(10)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_store_with_another_number_of_shards_is_refused(
    valkey_url: str, bench: Bench, key_prefix: str, kind: str
) -> None:
    """Clearly, on every call, and before anything of it was run."""
    before = bench.snapshot()
    for shards in (2, 3):
        for message in run_on(kind, valkey_url, Keyspace(key_prefix, shards), [bench.submission()] * 3):
            assert f"has shards 1, this process has {shards}" in message
            assert key_prefix in message
    assert bench.snapshot() == before


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_store_with_another_format_is_refused(valkey_url: str, bench: Bench, kind: str) -> None:
    """A newer or older program does not touch what it does not understand."""
    bench.raw.hset(bench.key("meta"), "format", "0")
    before = bench.snapshot()
    for message in run_on(kind, valkey_url, bench.keyspace, [bench.submission()] * 3):
        assert f"has format 0, this process has {FORMAT}" in message
    assert bench.snapshot() == before


def run_on(kind: str, url: str, keyspace: Keyspace, submissions: list[commands.Submission]) -> list[str]:
    """Store jobs one by one on a store that refuses each, and return what it says."""
    said = []
    if kind == "sync":
        store = SyncStore(url, keyspace)
        for submission in submissions:
            with pytest.raises(StoreMismatch) as caught:
                store.run(commands.enqueue(0, [submission]))
            said.append(str(caught.value))
        store.close()
        return said

    async def run_all() -> None:
        store = Store(url, keyspace)
        for submission in submissions:
            with pytest.raises(StoreMismatch) as caught:
                await store.run(commands.enqueue(0, [submission]))
            said.append(str(caught.value))
        await store.aclose()

    asyncio.run(run_all())
    return said


@pytest.mark.parametrize("forget_scripts", [False, True])
async def test_an_emptied_store_is_attached_to_again(
    own_bench: Bench, private_valkey: EmbeddedValkey, forget_scripts: bool
) -> None:
    """Under open connections: its jobs are gone, their positions and attempts are worth nothing, new jobs go on."""
    claim = own_bench.start()
    old = own_bench.record(claim.id).epoch
    store = Store(private_valkey.url, own_bench.keyspace)
    await store.run(commands.count_jobs(0, ALICE))
    own_bench.raw.flushall()
    if forget_scripts:
        own_bench.raw.function_flush()
    assert await store.run(commands.read_job(claim.id)) is None
    step = commands.step(
        0, worker="w", call=9, lease_ms=LEASE_MS, writes=[own_bench.make_write(claim, Verb.COMPLETE)]
    )
    assert (await store.run(step)).codes == [WriteCode.REFUSED]
    again = own_bench.submission()
    [enqueued] = await store.run(commands.enqueue(0, [again]))
    assert enqueued.outcome is Outcome.CREATED
    assert own_bench.record(again.id).epoch != old
    own_bench.raw.flushall()
    if forget_scripts:
        own_bench.raw.function_flush()
    own_bench.checks = False
    own_bench.add()
    assert own_bench.counts() == {JobState.QUEUED: 1}
    await store.aclose()


async def test_forgotten_scripts_are_sent_again(own_bench: Bench, private_valkey: EmbeddedValkey) -> None:
    """The store keeps scripts in memory alone."""
    store = Store(private_valkey.url, own_bench.keyspace)
    for _ in range(3):
        own_bench.raw.function_flush()
        job_id = own_bench.add()
        own_bench.raw.function_flush()
        assert await store.run(commands.read_job(job_id)) is not None
    await store.aclose()


def test_a_full_store_takes_no_jobs_but_lets_go_of_what_it_has(own_bench: Bench) -> None:
    """New jobs are refused whole; those it has are claimed, end, and can be removed, on new connections too."""
    own_bench.add(queue="other")
    claim = own_bench.start()
    before = own_bench.snapshot()
    own_bench.raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable, match="does not take this now"):
            own_bench.enqueue(own_bench.submission())
        assert own_bench.snapshot() == before
        own_bench.reconnect()
        own_bench.progress(claim, 50)
        assert own_bench.complete(claim) is WriteCode.DONE
        other = own_bench.claim("other")
        own_bench.cancel(other.id)
        own_bench.run(commands.renew(0, [(other.id, 1)], lease_ms=LEASE_MS))
        assert own_bench.run(commands.delete(claim.id)) == "deleted"
    finally:
        own_bench.raw.config_set("maxmemory", 0)
    own_bench.add()


def test_a_store_that_restarts_full_is_attached_to(own_bench: Bench, private_valkey: EmbeddedValkey) -> None:
    """Otherwise nobody could ever empty it."""
    claim = own_bench.start()
    private_valkey.kill()
    private_valkey.start()
    own_bench.raw.config_set("maxmemory", 1)
    own_bench.reconnect()
    assert own_bench.complete(claim) is WriteCode.DONE


def test_a_replica_is_read_from_but_not_written_to(own_bench: Bench, private_valkey: EmbeddedValkey) -> None:
    """A demoted primary answers as a store that is not available, until it is one again."""
    job_id = own_bench.add()
    own_bench.checks = False
    own_bench.raw.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailable):
        own_bench.cancel(job_id)
    assert own_bench.record(job_id).state is JobState.QUEUED
    own_bench.raw.execute_command("REPLICAOF", "NO", "ONE")
    assert own_bench.cancel(job_id) == ("cancelled", JobState.CANCELLED)


def test_a_busy_store_is_not_available(own_bench: Bench) -> None:
    """Somebody else's endless script does not look like our mistake."""
    own_bench.raw.config_set("busy-reply-threshold", 1)

    def spin() -> None:
        try:
            own_bench.raw.eval("while true do end", 0)
        except RedisError as error:
            ended.append(str(error))

    ended: list[str] = []
    thread = threading.Thread(target=spin)
    own_bench.checks = False
    thread.start()

    def is_refused() -> bool:
        try:
            own_bench.store.run(commands.count_jobs(0, ALICE))
        except StoreUnavailable:
            return True
        return False

    eventually_sync(is_refused)
    own_bench.raw.script_kill()
    thread.join(scaled(10))
    assert ended
    assert own_bench.counts() == {}


def test_a_mistake_of_ours_is_not_taken_for_a_lost_store(bench: Bench) -> None:
    """What will never pass is raised as it is."""
    with pytest.raises(ResponseError):
        bench.store.run(Command("step", 0, [], lambda reply: reply))


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_waiting_takes_what_comes_or_ends_in_time(bench: Bench, valkey_url: str, kind: str) -> None:
    """Also longer than one command may take."""
    key = bench.keyspace.wake_list(0, "default")

    def wait(timeout_s: float) -> tuple[str, bytes] | None:
        if kind == "sync":
            store = SyncStore(valkey_url, bench.keyspace, timeout_s=0.2)
            found = store.wait([key], timeout_s)
            store.close()
            return found

        async def wait_once() -> tuple[str, bytes] | None:
            store = Store(valkey_url, bench.keyspace, timeout_s=0.2)
            found = await store.wait([key], timeout_s)
            await store.aclose()
            return found

        return asyncio.run(wait_once())

    began = time.monotonic()
    assert wait(0.5) is None
    assert time.monotonic() - began >= 0.5
    assert wait(0) is None
    bench.add()
    assert wait(0) == (key, b"1")
    bench.step(wants=[("default", 0)])
    assert wait(30) == (key, b"1")


async def test_a_cancelled_caller_leaves_no_reply_for_the_next(bench: Bench, valkey_url: str) -> None:
    """Whenever it is cancelled, also while it connects: each call gets its own answer."""
    ids = [bench.add() for _ in range(8)]
    store = Store(valkey_url, bench.keyspace, max_connections=2)
    for n in range(150):
        task = asyncio.create_task(store.run(commands.read_job(ids[n % 8])))
        for _ in range(n % 30):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        found = await asyncio.gather(*(store.run(commands.read_job(job_id)) for job_id in ids))
        assert [record and record.id for record in found] == ids
    await store.aclose()


def test_the_proxy_loses_what_it_is_told_to_lose(valkey_server: EmbeddedValkey, tmp_path: Path) -> None:
    """The checker is checked: an unarmed call passes, an armed one takes effect and is not answered."""

    async def run_through() -> None:
        async with LossyProxy(valkey_server.socket_path, tmp_path / "p.sock") as proxy:
            client = redis.asyncio.Redis.from_url(proxy.url, socket_timeout=TIMEOUT_S, retry=None)
            key = f"proxy-{tmp_path.name}"
            script = "return redis.call('INCR', KEYS[1])"
            assert await client.eval(script, 1, key) == 1
            for fault in Fault:
                proxy.arm(fault)
                with pytest.raises(RedisError):
                    await client.eval(script, 1, key)
            assert await client.eval(script, 1, key) >= 4
            await client.delete(key)
            await client.aclose()

    asyncio.run(run_through())
