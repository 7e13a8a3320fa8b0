"""The loop that fires schedules. Any number of processes run it at once: the store lets each due time be fired by one."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tidings.protocol.errors import InvalidInput, StoreUnavailable

from ..queue.queues import QueuePolicy
from ..registry import Registry
from ..store import Store
from ..store import schedule_commands as commands
from ..store.schedule_commands import DueSchedule, Fired, FireOutcome
from .book import SETTINGS, ScheduleBook, read_definition
from .runs import Press
from .schedule import Schedule

__all__ = ["Scheduler"]

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
"""So late, at most, is a change of a schedule noticed. What is known to be due is slept for exactly."""

_LEAST_PAUSE_S = 0.005
_RETRY_S = 1.0
_SPREAD_S = 0.02
"""Processes don't look all at the same moment: the first one fires, and the others find nothing due."""


class Scheduler:
    """Looks at the schedules of all shards, and fires those whose job types this process knows.

    Args:
        declared: the settings' schedules, which are brought into the store first; None leaves it as it is.
        on_fired: told of each due time that this process fired.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        policies: Mapping[str, QueuePolicy],
        *,
        declared: Mapping[str, Schedule] | None = None,
        on_fired: Callable[[str, int, Fired], None] | None = None,
    ) -> None:
        self._store = store
        self._book = ScheduleBook(store, registry, policies)
        self._press = Press(store.keyspace, registry, policies)
        self._declared = declared
        self._on_fired = on_fired
        self._known: dict[str, tuple[str, Schedule | None]] = {}
        """By name: the version of the definition, and the schedule, unless it cannot be read."""
        self._is_failing = False

    async def run(self) -> None:
        """Run until cancelled. A store that is away is waited for."""
        is_declared = self._declared is None
        while not is_declared:
            with self._tolerated("schedules were not declared"):
                await self.declare(self._declared or {})
                is_declared = True
            if not is_declared:
                await asyncio.sleep(_RETRY_S)
        async with asyncio.TaskGroup() as group:
            for shard in range(self._store.keyspace.shards):
                group.create_task(self._run(shard), name=f"schedules of shard {shard}")

    async def declare(self, declared: Mapping[str, Schedule]) -> None:
        """Make the store's schedules of the settings equal to these; those made by others stay, but for the same name."""
        left = set()
        for name, schedule in declared.items():
            try:
                self._book.check(schedule)
            except InvalidInput as error:
                # Another process of this installation may have the type.
                _log.warning("schedule %s is left to others: %s", name, error)
                left.add(name)
                continue
            outcome = await self._book.put(schedule, origin=SETTINGS)
            _log.info("schedule %s: %s", name, outcome.value)
        for shard in range(self._store.keyspace.shards):
            for name, origin in await self._list(shard):
                wanted = declared.get(name)
                if wanted is None and origin == SETTINGS:
                    await self._store.run(commands.drop_schedule(shard, name, origin=SETTINGS))
                    _log.info("schedule %s was removed: the settings do not declare it any more", name)
                elif wanted and name not in left and self._shard_of(wanted) != shard:
                    await self._store.run(commands.drop_schedule(shard, name))
                    _log.info("schedule %s has another owner now", name)

    async def _list(self, shard: int) -> list[tuple[str, str]]:
        _, found = await self._store.run(commands.list_schedules(shard, limit=commands.MAX_SCHEDULES))
        return [(record.name, record.origin) for record in found]

    def _shard_of(self, schedule: Schedule) -> int:
        return self._store.keyspace.shard_of_tenant(schedule.tenant)

    async def _run(self, shard: int) -> None:
        while True:
            pause_s = _RETRY_S
            with self._tolerated(f"the schedules of shard {shard} were not looked at"):
                pause_s = await self.look(shard)
            await asyncio.sleep(pause_s)

    async def look(self, shard: int) -> float:
        """Fire what is due in a shard, and return when to look again, in seconds."""
        found = await self._store.run(commands.due_schedules(shard))
        is_again = False
        for due in found.due:
            try:
                is_again |= await self._fire(shard, due, found.now_ms)
            except StoreUnavailable:
                raise
            except Exception:
                _log.exception("schedule %s was not fired", due.name)  # it keeps back no other
        if is_again:
            return _LEAST_PAUSE_S
        wait_s = _LOOK_EVERY_S if found.next_due_ms is None else found.next_due_ms / 1000
        return min(_LOOK_EVERY_S, max(_LEAST_PAUSE_S, wait_s)) + random.uniform(0, _SPREAD_S)

    async def _fire(self, shard: int, due: DueSchedule, now_ms: int) -> bool:
        """Fire a schedule; return whether it is due at another time now."""
        schedule = await self._read(shard, due)
        if schedule is None:
            return False
        try:
            command = self._press.make_fire(schedule, due, now_ms)
        except InvalidInput:
            return False  # a process that has the type, or its newer version, fires it
        fired = await self._store.run(command)
        if fired.outcome is FireOutcome.FIRED:
            _log.debug("schedule %s fired", due.name, extra={"due_ms": due.due_ms, "jobs": list(fired.jobs)})
            if self._on_fired is not None:
                self._on_fired(due.name, due.due_ms, fired)
        return fired.outcome is not FireOutcome.EARLY

    @contextmanager
    def _tolerated(self, what: str) -> Iterator[None]:
        """Go on after an error; a store that is away is told of once."""
        try:
            yield
            self._is_failing = False
        except StoreUnavailable as error:
            if not self._is_failing:
                _log.warning("%s: %s", what, error)
            self._is_failing = True
        except Exception:
            _log.exception("%s", what)

    async def _read(self, shard: int, due: DueSchedule) -> Schedule | None:
        known = self._known.get(due.name)
        if known is None or known[0] != due.version:
            record = (await self._store.run(commands.read_schedule(shard, due.name))).record
            if record is None or record.version != due.version:
                return None  # changed this very moment; it is looked at again
            known = due.version, read_definition(due.name, record.definition)
            if len(self._known) > commands.MAX_SCHEDULES:
                self._known.clear()
            self._known[due.name] = known
        return known[1]
