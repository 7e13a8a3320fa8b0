"""One shard of a worker: commits writes, claims jobs, and listens for wake-ups and cancellations.

Two steps are under way at a time, so that the store works on one while the process works on what the other brought.
The outbox keeps the writes of one attempt in one step; what is written meanwhile goes together into the next one
(group commit). A step that the store did not answer is sent again as it was, with its call number: the store knows
what it has seen.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tidings.protocol.errors import StoreUnavailable

from ..attempt import StopReason
from ..outbox import Batch, Bounds, Outbox
from ..queue.queues import BUILT_IN_POLICIES, QueuePolicy
from ..store import StepReply, Store, commands
from .crew import Crew
from .metrics import Metrics
from .slots import Reservation, Slots, Turns

__all__ = ["Lane", "LaneOptions"]

_log = logging.getLogger(__name__)

_LISTEN_S = 1.0
_CLAIM_BATCH = 100
_STEPS_UNDER_WAY = 2
_CALLS_KEPT = 8
"""So many calls of a worker the store remembers: none may be repeated after as many newer ones."""
_LEAST_BACKOFF_S, _MOST_BACKOFF_S = 0.1, 2.0
_CANCEL = re.compile(rb"cancel (\S+):(\d+)")


@dataclass(frozen=True, slots=True)
class LaneOptions:
    """What a lane is told once. ``policies`` say in which order it asks its ``queues``."""

    worker: str
    queues: Sequence[str]
    lease_ms: int
    max_event_bytes: int
    bounds: Bounds = field(default_factory=Bounds)
    policies: Mapping[str, QueuePolicy] = field(default_factory=lambda: BUILT_IN_POLICIES)


class Lane:
    """Start ``run``, ``listen`` and ``hear`` as tasks; ``run`` returns after ``close``, when all is stored."""

    def __init__(
        self, shard: int, options: LaneOptions, store: Store, crew: Crew, slots: Slots, metrics: Metrics
    ) -> None:
        self.shard = shard
        self.has_store = False
        """Whether the last call reached the store."""
        self.attached = asyncio.Event()
        """Set once the store has answered for the first time."""
        self.outbox = Outbox(self._wake, options.bounds, max_event_bytes=options.max_event_bytes)
        self._options, self._store, self._crew, self._slots, self._metrics = (
            options,
            store,
            crew,
            slots,
            metrics,
        )
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._woken = asyncio.Event()
        self._is_woken = False
        self._may_listen = asyncio.Event()
        self._looks = True
        self._has_plenty = False
        # What the last look could not ask for: any job, or one of these queues.
        self._is_starved = False
        self._full: frozenset[str] = frozenset()
        self._unheard: frozenset[str] = frozenset()
        self._turns = Turns(options.queues, options.policies)
        self._is_claiming = True
        self._is_closing = False
        self._due_at: float | None = None
        # The store keeps the last call of each worker name, and a name may be used again by the next process.
        self._call = secrets.randbits(48)
        self._under_way: list[int] = []
        slots.listen(self._on_free_slot)

    def stop_claiming(self) -> None:
        """Claim no more. ``listen`` is over by then, so that no wake token is taken any more."""
        self._is_claiming = False
        self._looks = True
        self._wake()

    def close(self) -> None:
        """Have ``run`` return as soon as the store has all writes."""
        self._is_closing = True
        self._wake()

    async def run(self) -> None:
        """Commit and claim until closed."""
        name = f"worker: steps of shard {self.shard}"
        steppers = [asyncio.create_task(self._step_on(), name=name) for _ in range(_STEPS_UNDER_WAY)]
        try:
            await asyncio.gather(*steppers)
        finally:
            for stepper in steppers:
                stepper.cancel()
            await asyncio.gather(*steppers, return_exceptions=True)

    async def listen(self) -> None:
        """Wait for the wake tokens of the queues that may start something, while there are free slots."""
        keyspace = self._store.keyspace
        nudge = keyspace.nudge_list(self.shard, self._options.worker)
        while True:
            await self._may_listen.wait()
            # The token of a full queue would be taken, given back, and taken again without end.
            self._unheard = self._slots.full_queues()
            heard = [queue for queue in self._options.queues if queue not in self._unheard]
            lists = [*(keyspace.wake_list(self.shard, queue) for queue in heard), nudge]
            try:
                await self._store.wait(lists, _LISTEN_S)
            except StoreUnavailable:
                await asyncio.sleep(random.uniform(_LEAST_BACKOFF_S, 2 * _LEAST_BACKOFF_S))
            # Also when the time is over: a token can be lost with the worker that took it.
            self._unheard = frozenset()
            self._may_listen.clear()
            self._looks = True
            self._wake()

    async def hear(self) -> None:
        """Read the worker's mailbox: which of its jobs were cancelled."""
        mailbox = [self._store.keyspace.mailbox(self.shard, self._options.worker)]
        while True:
            try:
                letter = await self._store.wait(mailbox, _LISTEN_S)
            except StoreUnavailable:
                await asyncio.sleep(random.uniform(_LEAST_BACKOFF_S, _MOST_BACKOFF_S))
                continue
            if letter is not None and (found := _CANCEL.fullmatch(letter[1])) is not None:
                self._crew.stop(found[1].decode(), int(found[2]), StopReason.CANCELLED)

    async def _step_on(self) -> None:
        while True:
            self._is_woken = False
            self._woken.clear()
            if self._under_way and self._call - self._under_way[0] >= _CALLS_KEPT - 1:
                await self._woken.wait()
                continue
            batch = self.outbox.take()
            is_due = self._due_at is not None and time.monotonic() >= self._due_at
            if not batch.writes and not self._looks and not is_due:
                if self._is_closing and self.outbox.is_empty:
                    self._wake()
                    break
                await self._pause()
                continue
            await self._commit(batch, looks=self._looks or (is_due and self._is_claiming))
            # What was just claimed begins to run: its first writes, or its last, go into this stepper's next step.
            await asyncio.sleep(0)

    async def _commit(self, batch: Batch, *, looks: bool) -> None:
        held = self._reserve() if looks else None
        # Where there was plenty, the other step fills what is left, at the same time.
        self._looks = held is not None and self._has_plenty and held.room > 0 and self._slots.free > 0
        if self._looks:
            self._wake()
        reply = await self._step(batch, held)
        due_ms = reply.next_due_ms
        self._due_at = None if due_ms is None else time.monotonic() + due_ms / 1000
        self._crew.settle(self.shard, self.outbox.settle(batch, reply.codes))
        self._crew.take(self.shard, self.outbox, reply.claims)
        if held is not None:
            self._turns.serve(reply.claims)
            is_more = self._slots.settle(held, reply.claims)
            self._has_plenty = is_more and held.room > 0
            self._is_starved = self._slots.free <= 0
            self._full = self._slots.full_queues()
            if self._is_claiming and not self._is_starved:
                if is_more:
                    self._looks = True
                # It may be set too by a token that came while the step was under way.
                if not self._looks:
                    await self._listen_again()

    def _reserve(self) -> Reservation:
        # With no slot left, or none wanted, a look still names the queues: it gives back the token that may have been
        # taken from one of them.
        # What this look cannot ask for, and what is free before it is over.
        self._is_starved, self._full = self._slots.free <= 0, self._slots.full_queues()
        if not self._is_claiming or self._is_starved:
            return self._slots.reserve(0, self._turns.plain)
        # A part of the slots alone: were all filled by one step, all would be free at the same time, and the other idle.
        most = min(_CLAIM_BATCH, -(-self._slots.size // _STEPS_UNDER_WAY))
        return self._slots.reserve(most, *self._turns.next())

    async def _listen_again(self) -> None:
        if len(self._full) < len(self._options.queues):
            self._may_listen.set()
        if self._unheard - self._full:
            # A queue that was full when the listening began: it must not wait for the end of that.
            with suppress(StoreUnavailable):
                await self._store.nudge(self._store.keyspace.nudge_list(self.shard, self._options.worker))

    async def _step(self, batch: Batch, held: Reservation | None) -> StepReply:
        self._call += 1
        call = self._call
        self._under_way.append(call)
        command = commands.step(
            self.shard, worker=self._options.worker, call=call, lease_ms=self._options.lease_ms,
            writes=batch.writes, wants=held.wants if held else (), most=held.room if held else 0,
        )  # fmt: skip
        backoff_s = _LEAST_BACKOFF_S
        while True:
            started = time.monotonic()
            try:
                reply = await self._store.run(command)
            except StoreUnavailable as error:
                self._metrics.store_failures.inc()
                if backoff_s == _LEAST_BACKOFF_S:
                    _log.warning("shard %d waits for the store: %s", self.shard, error)
                self.has_store = False
                await asyncio.sleep(random.uniform(_LEAST_BACKOFF_S, backoff_s))
                backoff_s = min(_MOST_BACKOFF_S, backoff_s * 2)
                continue
            self._under_way.remove(call)
            self._metrics.commit_seconds.observe(time.monotonic() - started)
            if not self.has_store and self.attached.is_set():
                _log.warning("shard %d has the store again", self.shard)
            self.has_store = True
            self.attached.set()
            return reply

    async def _pause(self) -> None:
        due = [at for at in (self.outbox.next_due(), self._due_at) if at is not None]
        delay_s = max(0.0, min(due) - time.monotonic()) if due else None
        try:
            async with asyncio.timeout(delay_s):
                await self._woken.wait()
        except TimeoutError:
            return

    def _on_free_slot(self, queue: str | None) -> None:
        if self._is_starved or queue in self._full or queue in self._unheard:
            self._is_starved, self._full = False, frozenset()
            self._looks = True
            self._wake()

    def _wake(self) -> None:
        if self._is_woken:
            return
        self._is_woken = True
        if threading.get_ident() == self._thread:
            self._woken.set()
            return
        try:
            self._loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:
            return  # the loop is closed: the worker ended without this thread
