"""The intake: submissions that arrive together are stored together, one call of the store for many of them.

Each shard has a lane. While a lane's call is on its way, what arrives waits, and the next call takes all of it, up to a
bound; a second one joins it where many wait. So a lone submission waits for nobody, and a flood costs few calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from tidings.protocol.errors import QueueFull, ServerDraining, StoreUnavailable
from tidings_tasks.store import Enqueued, Store, Submission, commands

__all__ = ["Intake"]

_log = logging.getLogger(__name__)

_MAX_WAITING = 10_000
_MAX_BATCH = 200
_MAX_BATCH_BYTES = 2_097_152
_SECOND_CALL_FROM = 100
"""So many waiting submissions are worth a second call beside the one under way: the store and this process then work at once."""
_CLOSE_TIMEOUT_S = 10.0


@dataclass(slots=True)
class _Waiting:
    submission: Submission
    size_bytes: int
    answer: asyncio.Future[Enqueued]

    @property
    def idempotency(self) -> tuple[str, str] | None:
        key = self.submission.idempotency_key
        return (self.submission.spec.tenant.scope, key) if key else None

    @property
    def deduplication(self) -> tuple[str, str] | None:
        key = self.submission.dedup_key
        return (self.submission.spec.tenant.scope, key) if key else None


class _Lane:
    __slots__ = ("batches", "tasks", "waiting")

    def __init__(self) -> None:
        self.batches = asyncio.Lock()
        self.waiting: deque[_Waiting] = deque()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def wants_call(self) -> bool:
        """Whether another call is to begin for what waits."""
        return not self.tasks or (len(self.tasks) == 1 and len(self.waiting) >= _SECOND_CALL_FROM)


class Intake:
    """Stores submissions. Close it with ``aclose`` before the store is closed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lanes: dict[int, _Lane] = {}
        self._waiting = 0
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many submissions wait for their call of the store."""
        return self._waiting

    async def submit(self, shard: int, submission: Submission) -> Enqueued:
        """Store a submission and return what became of it.

        A caller who is cancelled while waiting leaves it open whether the job was stored.

        Raises:
            QueueFull: too many submissions wait on this server.
            ServerDraining: the server is closing.
            StoreUnavailable: the store did not answer; the job may have been stored.
        """
        self._make_room(1)
        answer: asyncio.Future[Enqueued] = asyncio.get_running_loop().create_future()
        lane = self._lanes.setdefault(shard, _Lane())
        lane.waiting.append(_Waiting(submission, len(submission.spec.to_json()), answer))
        self._waiting += 1
        if lane.wants_call:
            lane.tasks.add(asyncio.create_task(self._run(shard, lane), name=f"intake-{shard}"))
        return await answer

    async def submit_batch(self, shard: int, batch: Sequence[Submission]) -> list[Enqueued]:
        """Store all of these or none, in one call of their own, and return what became of each.

        A shard's batches go one after the other, so that single submissions are not held up by many of them. Raises as
        ``submit`` does.
        """
        self._make_room(len(batch))
        self._waiting += len(batch)
        try:
            async with self._lanes.setdefault(shard, _Lane()).batches:
                return await self._store.run(commands.enqueue(shard, batch, all_or_none=True))
        finally:
            self._waiting -= len(batch)

    async def aclose(self) -> None:
        """Store what waits, for at most 10 s; refuse the rest."""
        self._is_closed = True
        tasks = [task for lane in self._lanes.values() for task in lane.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_TIMEOUT_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _make_room(self, count: int) -> None:
        if self._is_closed:
            raise ServerDraining(retry_after_s=1)
        if self._waiting + count > _MAX_WAITING:
            raise QueueFull("too many submissions wait on this server; try again shortly", retry_after_s=1)

    async def _run(self, shard: int, lane: _Lane) -> None:
        batch: list[_Waiting] = []
        try:
            while batch := self._next_batch(lane):
                await self._store_batch(shard, batch)
        finally:
            lane.tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            left = list(batch)
            if not lane.tasks:
                left += lane.waiting
                self._waiting -= len(lane.waiting)
                lane.waiting.clear()
            _refuse(left, "the server closed; the job may not have been stored")

    def _next_batch(self, lane: _Lane) -> list[_Waiting]:
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        keys: set[tuple[str, str]] = set()
        dedup_keys: set[tuple[str, str]] = set()
        size_bytes = 0
        while lane.waiting and len(batch) < _MAX_BATCH:
            first = lane.waiting[0]
            if batch and size_bytes + first.size_bytes > _MAX_BATCH_BYTES:
                break
            lane.waiting.popleft()
            if first.answer.done():
                self._waiting -= 1
                continue
            key = first.idempotency
            if key is not None and key in keys:
                # The script looks all keys up before it stores anything, so a repeat belongs in the next call.
                later.append(first)
                continue
            dedup_key = first.deduplication
            if first.submission.debounce and dedup_key in dedup_keys:
                # Likewise: it is to take the place of a job that must be stored first.
                later.append(first)
                continue
            if key is not None:
                keys.add(key)
            if dedup_key is not None:
                dedup_keys.add(dedup_key)
            size_bytes += first.size_bytes
            batch.append(first)
        lane.waiting.extendleft(reversed(later))
        self._waiting -= len(batch)
        return batch

    async def _store_batch(self, shard: int, batch: Sequence[_Waiting]) -> None:
        try:
            found = await self._store.run(commands.enqueue(shard, [each.submission for each in batch]))
        except StoreUnavailable as error:
            _refuse(batch, f"{error.detail}; the job may have been stored")
        except Exception:
            _log.exception("storing %d jobs of shard %d failed", len(batch), shard)
            _refuse(batch, "the job store did not take the job")
        else:
            for each, enqueued in zip(batch, found, strict=True):
                if not each.answer.done():
                    each.answer.set_result(enqueued)


def _refuse(batch: Sequence[_Waiting], detail: str) -> None:
    for each in batch:
        if not each.answer.done():
            # One error each: an exception that several tasks raise would gather all their tracebacks.
            each.answer.set_exception(StoreUnavailable(detail, retry_after_s=1))
