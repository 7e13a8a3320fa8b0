"""The relay: topics for what is watched, fed by one pub/sub reader, checked against the logs.

Pub/sub may lose messages without a word, the last one of a job among them. So after every reconnection, and every few seconds
for all watched jobs, the heads are compared with the store in one call; and a canary is published to itself, since a server
that hears nothing must not be ready.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice

from tidings.protocol import BEGINNING, Position, shard_of
from tidings.protocol.errors import StoreUnavailable
from tidings_tasks.store import Store, commands

from .entry import FeedSource, JobSource, Source
from .follower import FeedFollower, Follower
from .subscriber import Subscriber
from .topic import Topic

__all__ = ["Relay"]

_log = logging.getLogger(__name__)

_CONFIRM_TIMEOUT_S = 10.0
_CHECK_EVERY_S = 5.0
_CHECK_BATCH = 500
_CANARY_EVERY_S = 1.0
_DEAF_AFTER_S = 4.0


class Relay:
    """Watches logs for everybody on this server. Start it on the loop that uses it; close it with ``aclose``.

    Args:
        check_every_s: how often the heads of watched logs are compared with the store, seconds; it bounds how late a
            lost last message arrives.
    """

    def __init__(self, store: Store, *, check_every_s: float = _CHECK_EVERY_S) -> None:
        self.store = store
        self._check_every_s = check_every_s
        self._topics: dict[bytes, Topic] = {}
        self._subscriber = Subscriber(store.url, on_message=self._hear, on_connected=self._recheck)
        self._canary = store.keyspace.feed_channel(0, f"canary:{secrets.token_hex(8)}").encode()
        self._heard_at = float("-inf")
        self._tasks: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._check_now = asyncio.Event()

    async def start(self) -> None:
        """Begin to listen. It returns at once; ``is_hearing`` tells when the relay is ready."""
        self._subscriber.start()
        self._subscriber.subscribe(self._canary)
        self._tasks = [
            asyncio.create_task(self._check_heads(), name="relay-heads"),
            asyncio.create_task(self._sing(), name="relay-canary"),
        ]

    async def aclose(self) -> None:
        """Stop listening and end all topics."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for topic in self._topics.values():
            self._end(topic)
        self._topics.clear()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._subscriber.aclose()

    @property
    def is_hearing(self) -> bool:
        """Whether what is published reaches this server: its own canary came back lately."""
        return asyncio.get_running_loop().time() - self._heard_at < _DEAF_AFTER_S

    @property
    def watched(self) -> int:
        """How many logs are watched."""
        return len(self._topics)

    def watch_job(self, job_id: str) -> Topic:
        """Use the topic of a job; give it back with ``release``. Only for callers that have checked the ownership."""
        return self._use(JobSource(self.store, shard_of(job_id), job_id))

    def watch_feed(self, shard: int, feed: str) -> Topic:
        """Use the topic of a feed; give it back with ``release``. Only for callers that have checked the scope."""
        return self._use(FeedSource(self.store, shard, feed))

    def release(self, topic: Topic) -> None:
        """Give a topic back. The last user's leaving ends it and its subscription."""
        topic.users -= 1
        if topic.users == 0:
            self._topics.pop(topic.source.channel, None)
            self._subscriber.unsubscribe(topic.source.channel)
            self._end(topic)

    @asynccontextmanager
    async def follow(self, job_id: str, after: Position = BEGINNING) -> AsyncIterator[Follower]:
        """Follow a job's log from a position, by asking for what is next. For polls and streams of REST.

        Raises:
            StoreUnavailable: the subscription was not confirmed in time.
        """
        topic = self.watch_job(job_id)
        follower = Follower(topic, after)
        try:
            await topic.wait_confirmed(_CONFIRM_TIMEOUT_S)
            yield follower
        finally:
            topic.leave(follower)
            self.release(topic)

    @asynccontextmanager
    async def follow_feed(
        self, shard: int, feed: str, after: Position = BEGINNING
    ) -> AsyncIterator[FeedFollower]:
        """Follow a feed; from ``BEGINNING`` its first batch is the snapshot."""
        topic = self.watch_feed(shard, feed)
        follower = FeedFollower(topic, after)
        try:
            await topic.wait_confirmed(_CONFIRM_TIMEOUT_S)
            yield follower
        finally:
            topic.leave(follower)
            self.release(topic)

    def _use(self, source: Source) -> Topic:
        topic = self._topics.get(source.channel)
        if topic is None:
            channel = source.channel
            topic = Topic(source, lambda: self._subscriber.subscribe(channel))
            self._topics[channel] = topic
            self._subscriber.subscribe(channel)
        topic.users += 1
        return topic

    def _end(self, topic: Topic) -> None:
        filler = topic.stop()
        if filler is not None:
            # A call of the store may outlive its cancellation for a moment; it must not outlive the store.
            self._ending.add(filler)
            filler.add_done_callback(self._ending.discard)

    def _hear(self, channel: bytes, payload: bytes) -> None:
        topic = self._topics.get(channel)
        if topic is not None:
            topic.hear(payload)
        elif channel == self._canary:
            self._heard_at = asyncio.get_running_loop().time()

    def _recheck(self) -> None:
        self._check_now.set()

    async def _check_heads(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._check_every_s):
                    await self._check_now.wait()
            except TimeoutError:
                pass
            self._check_now.clear()
            try:
                await self._compare()
            except StoreUnavailable as error:
                _log.warning("cannot compare heads: %s", error)

    async def _compare(self) -> None:
        by_shard: dict[int, list[Topic]] = {}
        for topic in list(self._topics.values()):
            if isinstance(topic.source, JobSource):
                by_shard.setdefault(topic.source.shard, []).append(topic)
            else:
                topic.refill()
        for shard, topics in by_shard.items():
            remaining = iter(topics)
            while batch := list(islice(remaining, _CHECK_BATCH)):
                await self._compare_batch(shard, batch)

    async def _compare_batch(self, shard: int, topics: Sequence[Topic]) -> None:
        ids = [topic.source.job_id for topic in topics if isinstance(topic.source, JobSource)]
        heads = await self.store.run(commands.read_heads(shard, ids))
        for topic, head in zip(topics, heads, strict=True):
            at = topic.head
            if at is not None and (head is None or (head.epoch, head.seq) != at):
                topic.refill()

    async def _sing(self) -> None:
        # A canary sent before anybody listens would be lost, and readiness a second later than need be.
        await asyncio.shield(self._subscriber.subscribe(self._canary))
        while True:
            try:
                await self.store.publish(self._canary.decode(), b"-")
            except StoreUnavailable:
                _log.debug("the canary could not be sent")
            await asyncio.sleep(_CANARY_EVERY_S)
