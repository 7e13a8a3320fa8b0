"""The relay: each watcher sees a log once, in order and to its end, whatever pub/sub loses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.driving import JobDriver, check_sequence
from tests.support.timing import eventually, scaled
from tidings.protocol import BEGINNING, Position
from tidings.protocol.errors import JobNotFound
from tidings_server.relay import Follower, Relay
from tidings_tasks.embedded import EmbeddedValkey
from tidings_tasks.store import Keyspace, Store, Tenant, Verb, commands


@pytest.fixture
async def store(valkey_url: str, keyspace: Keyspace) -> AsyncIterator[Store]:
    """A store of this test's own prefix."""
    store = Store(valkey_url, keyspace)
    yield store
    await store.aclose()


@pytest.fixture
async def relay(store: Store) -> AsyncIterator[Relay]:
    """A started relay that compares heads often."""
    relay = Relay(store, check_every_s=0.2)
    await relay.start()
    yield relay
    await relay.aclose()


@pytest.fixture
def driver(store: Store) -> JobDriver:
    """A worker's hands."""
    return JobDriver(store)


async def read_to_end(follower: Follower, *, wait_s: float = 10.0) -> list[bytes]:
    """Read until the terminal event."""
    texts: list[bytes] = []
    async with asyncio.timeout(scaled(wait_s * 2)):
        while True:
            batch = await follower.read(wait_s=wait_s)
            assert batch.reset is None
            assert batch.events or batch.done, f"nothing came within {wait_s} s"
            texts += batch.events
            if batch.done:
                return texts


def plant(relay: Relay, fault: Callable[[bytes], list[bytes]]) -> None:
    """Put a fault between the store's messages and the relay."""
    hear = relay._subscriber._on_message

    def faulty(channel: bytes, payload: bytes) -> None:
        for message in fault(payload):
            hear(channel, message)

    relay._subscriber._on_message = faulty


async def test_a_live_watcher_sees_each_event_as_it_happens(relay: Relay, driver: JobDriver) -> None:
    """Progress is not folded for somebody who watches: each event arrives by itself."""
    claim = await driver.start()
    async with relay.follow(claim.id) as follower:
        first = await follower.read()
        assert [b'"kind":"queued"' in first.events[0], b'"kind":"started"' in first.events[1]] == [True, True]
        reading = asyncio.create_task(read_to_end(follower))
        await driver.progress(claim, *range(1, 51))
        await driver.complete(claim)
        events = check_sequence(await reading, after=2, head=53)
    assert [event.data.get("percent") for event in events[:50]] == list(range(1, 51))
    assert all(event.prev is None for event in events)
    assert relay.watched == 0


@pytest.mark.parametrize("lost", [3, 10, 52, 53])
async def test_a_lost_message_is_filled_from_the_log(relay: Relay, driver: JobDriver, lost: int) -> None:
    """Whichever message pub/sub loses, the last one included, the watcher has the event."""
    claim = await driver.start()
    plant(relay, lambda payload: [] if b'"seq":%d,' % lost in payload else [payload])
    async with relay.follow(claim.id) as follower:
        reading = asyncio.create_task(read_to_end(follower))
        for percent in range(1, 51):
            await driver.progress(claim, percent)
        await driver.complete(claim)
        check_sequence(await reading, head=53)


async def test_repeated_and_late_messages_are_dropped(relay: Relay, driver: JobDriver) -> None:
    """What was delivered is not delivered again."""
    claim = await driver.start()
    seen: list[bytes] = []

    def repeat(payload: bytes) -> list[bytes]:
        seen.append(payload)
        return [payload, payload, seen[0]]

    plant(relay, repeat)
    async with relay.follow(claim.id) as follower:
        reading = asyncio.create_task(read_to_end(follower))
        await driver.log(claim, *(f"line {n}" for n in range(30)))
        await driver.complete(claim)
        check_sequence(await reading, head=33)


async def test_messages_out_of_order_are_put_in_order(relay: Relay, driver: JobDriver) -> None:
    """A message that overtakes another one starts a fill; the overtaken one is then a repeat."""
    claim = await driver.start()
    held: list[bytes] = []

    def swap(payload: bytes) -> list[bytes]:
        if b'"kind":"log"' in payload and not held:
            held.append(payload)
            return []
        return [payload, *[held.pop()] * bool(held)]

    plant(relay, swap)
    async with relay.follow(claim.id) as follower:
        reading = asyncio.create_task(read_to_end(follower))
        for n in range(20):
            await driver.log(claim, f"line {n}")
        await driver.complete(claim)
        check_sequence(await reading, head=23)


async def test_a_message_that_is_no_envelope_is_ignored(
    relay: Relay, driver: JobDriver, store: Store
) -> None:
    """Whoever may publish cannot make the relay fall over or deliver what is not in the log's form."""
    claim = await driver.start()
    async with relay.follow(claim.id) as follower:
        reading = asyncio.create_task(read_to_end(follower))
        await store.publish(store.keyspace.job_channel(0, claim.id), b'{"seq": 3, "evil": true}')
        await driver.complete(claim)
        check_sequence(await reading, head=3)


async def test_a_forged_event_of_the_future_keeps_nobody_from_joining(
    relay: Relay, driver: JobDriver, store: Store
) -> None:
    """What was heard before the first read is a hint; the log decides where somebody stands."""
    claim = await driver.start()
    forged = b'{"job_id":"%s","epoch":"evil","seq":99,"kind":"log","data":{}}' % claim.id.encode()
    topic = relay.watch_job(claim.id)
    await topic.wait_confirmed(scaled(5))
    topic.hear(forged)
    async with relay.follow(claim.id) as follower:
        reading = asyncio.create_task(read_to_end(follower))
        await driver.complete(claim)
        check_sequence(await reading, head=3)
    relay.release(topic)


async def test_watchers_that_join_in_a_stream_miss_and_repeat_nothing(
    relay: Relay, driver: JobDriver
) -> None:
    """Snapshot, then deltas, without a race: at whatever moment somebody joins, from whatever position."""
    claim = await driver.start()
    page = await driver.store.run(commands.read_events(claim.id))
    assert page is not None
    read: list[tuple[int, list[bytes]]] = []

    async def join(after: Position) -> None:
        async with relay.follow(claim.id, after) as follower:
            read.append((after.seq, await read_to_end(follower)))

    async with asyncio.TaskGroup() as group:
        for burst in range(60):
            group.create_task(join(BEGINNING if burst % 2 else Position(page.epoch, 2)))
            await driver.write(
                claim, (Verb.PROGRESS, {"percent": burst}), (Verb.LOG, {"message": f"burst {burst}"})
            )
        await driver.complete(claim)
    assert len(read) == 60
    for after, texts in read:
        check_sequence(texts, after=after, head=123)


async def test_a_reader_that_does_not_read_costs_a_bounded_buffer(relay: Relay, driver: JobDriver) -> None:
    """What piles up behind a slow reader is dropped and read again from the log."""
    claim = await driver.start()
    async with relay.follow(claim.id) as slow:
        await slow.read()
        await slow.read(wait_s=0.01)
        for start in range(0, 1000, 100):
            await driver.log(claim, *(f"line {n}" for n in range(start, start + 100)))
        async with relay.follow(claim.id, Position.parse((await slow.read(limit=1)).position)) as other:
            await other.read(limit=1)
        assert len(slow._kept) <= 256
        await driver.complete(claim)
        texts = await read_to_end(slow)
        check_sequence(texts, after=3, head=1003)


async def test_a_broken_pubsub_connection_loses_nothing(
    relay: Relay, driver: JobDriver, store: Store
) -> None:
    """Events published while the reader is away come from the log when it is back."""
    claim = await driver.start()
    async with relay.follow(claim.id) as follower:
        reading = asyncio.create_task(read_to_end(follower))
        for n in range(20):
            await driver.log(claim, f"line {n}")
            if n % 5 == 2:
                await store._redis.execute_command("CLIENT", "KILL", "TYPE", "PUBSUB")
        await driver.complete(claim)
        check_sequence(await reading, head=23)


async def test_a_job_that_is_not_there_is_said_to_be_missing(relay: Relay) -> None:
    """Following nothing is an error, not an endless wait."""
    async with relay.follow("01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0") as follower:
        with pytest.raises(JobNotFound):
            await follower.read(wait_s=5)


async def test_an_ended_job_is_read_and_done(relay: Relay, driver: JobDriver) -> None:
    """A watcher that comes long after gets the terminal event and is told that it was the last."""
    claim = await driver.start()
    await driver.complete(claim, {"a": 1})
    async with relay.follow(claim.id) as follower:
        batch = await follower.read(wait_s=5)
    assert batch.done
    check_sequence(batch.events, head=3)
    async with relay.follow(claim.id, Position.parse(batch.position)) as follower:
        after = await follower.read(wait_s=5)
    assert (after.events, after.done, after.reset) == ([], True, None)


async def test_a_feed_gives_its_open_jobs_and_then_what_changes(relay: Relay, driver: JobDriver) -> None:
    """Snapshot, numbered lifecycle events, unnumbered progress; resumable by position."""
    tenant = Tenant("carol", "acme")
    claim = await driver.start(tenant)
    feed = f"o:{tenant.scope}"
    async with relay.follow_feed(0, feed) as follower:
        snapshot = await follower.read()
        assert [job.id for job in snapshot.jobs or ()] == [claim.id]
        start = Position.parse(snapshot.position)
        await driver.progress(claim, 50)
        progress = await follower.read(wait_s=5)
        assert [position for position, _ in progress.entries] == [None]
        await driver.complete(claim)
        ended = await follower.read(wait_s=5)
        assert [position for position, _ in ended.entries] == [f"{start.epoch}:{start.seq + 1}"]
    async with relay.follow_feed(0, feed, start) as follower:
        resumed = await follower.read()
    assert (resumed.entries, resumed.reset, resumed.jobs) == (ended.entries, False, None)
    async with relay.follow_feed(0, feed, Position("nosuch", 3)) as follower:
        anew = await follower.read()
    assert (anew.reset, anew.jobs) == (True, [])


async def test_a_feed_nobody_wrote_to_gives_its_first_entry(relay: Relay, driver: JobDriver) -> None:
    """The position of an empty feed is as good as any other."""
    tenant = Tenant("dora")
    async with relay.follow_feed(0, f"o:{tenant.scope}") as follower:
        empty = await follower.read()
        assert (empty.position, empty.jobs) == ("0:0", [])
        await driver.enqueue(tenant)
        first = await follower.read(wait_s=5)
    assert [b'"kind":"queued"' in text for _, text in first.entries] == [True]
    async with relay.follow_feed(0, f"o:{tenant.scope}", Position("0", 0)) as follower:
        assert (await follower.read()).entries == first.entries


async def test_a_restarted_store_keeps_the_stream(private_valkey: EmbeddedValkey) -> None:
    """The store dies in mid-job and comes back with all it acknowledged: another epoch, no gap, no reset."""
    store = Store(private_valkey.url, lease_s=0.5)
    relay = Relay(store, check_every_s=0.2)
    await relay.start()
    try:
        driver = JobDriver(store)
        claim = await driver.start()
        async with relay.follow(claim.id) as follower:
            await driver.log(claim, "before")
            before = (await follower.read()).events
            reading = asyncio.create_task(read_to_end(follower, wait_s=30))
            await eventually(lambda: relay.is_hearing)
            private_valkey.kill()
            await eventually(lambda: not relay.is_hearing)
            private_valkey.start()
            await driver.log(claim, "after")
            await driver.complete(claim)
            events = check_sequence(before + await reading, head=5)
        assert len({event.epoch for event in events}) == 2
        await eventually(lambda: relay.is_hearing)
    finally:
        await relay.aclose()
        await store.aclose()


async def test_history_that_the_store_lost_is_signalled(
    private_valkey: EmbeddedValkey, keyspace: Keyspace
) -> None:
    """A live watcher that knows more than the store is told to begin anew from what the store has."""
    store = Store(private_valkey.url, keyspace)
    relay = Relay(store, check_every_s=0.2)
    await relay.start()
    try:
        driver = JobDriver(store)
        claim = await driver.start()
        key = f"{keyspace.shard(0)}:j:{claim.id}"
        async with relay.follow(claim.id) as follower:
            await driver.log(claim, "kept")
            assert (await follower.read()).position.endswith(":3")
            before = {k: await store._redis.dump(k) for k in (key, key.replace(":j:", ":e:"))}
            await driver.log(claim, "lost")
            assert len((await follower.read(wait_s=5)).events) == 1
            for name, dump in before.items():
                await store._redis.restore(name, 0, dump, replace=True)
            await store._redis.hset(f"{keyspace.shard(0)}:meta", "run", "another")
            await store.aclose()
            batch = await follower.read(wait_s=10)
        assert batch.reset is not None
        assert (batch.reset.head, batch.position, batch.events) == (3, f"{batch.reset.epoch}:3", [])
    finally:
        await relay.aclose()
        await store.aclose()
