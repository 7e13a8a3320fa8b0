"""All schedules of an installation, over its shards: read, made, changed, paused and run by name."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from pydantic import ValidationError

from tidings.protocol import new_job_id
from tidings.protocol.errors import (
    FieldError,
    InvalidInput,
    QueueDraining,
    QueueFull,
    ScheduleConflict,
    ScheduleMissing,
)

from ..queue.queues import QueuePolicy
from ..registry import Registry
from ..store import Store
from ..store import schedule_commands as commands
from ..store.schedule_commands import MAX_SCHEDULES, PutOutcome, ScheduleRecord
from .runs import Press
from .schedule import Schedule
from .timing import next_runs

__all__ = ["API", "MAX_DEFINITION_BYTES", "SETTINGS", "Entry", "ScheduleBook", "read_definition"]

_log = logging.getLogger(__name__)

API = "api"
SETTINGS = "settings"
"""Where a schedule comes from: what the settings declare is changed there alone."""

MAX_DEFINITION_BYTES = 65_536
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A schedule, what the store keeps of it in which shard, and the store's time when it was read."""

    schedule: Schedule
    record: ScheduleRecord
    shard: int
    now_ms: int


class ScheduleBook:
    """The schedules of a store, for what a person or program asks. Nothing is cached; the store is its owner's to close."""

    def __init__(self, store: Store, registry: Registry, policies: Mapping[str, QueuePolicy]) -> None:
        self._store = store
        self._keyspace = store.keyspace
        self._press = Press(store.keyspace, registry, policies)

    async def page(self, *, after: str = "", limit: int = _PAGE) -> list[Entry]:
        """Return up to ``limit`` schedules by name, from behind ``after``."""
        shards = range(self._keyspace.shards)
        pages = await asyncio.gather(
            *(self._store.run(commands.list_schedules(shard, after=after, limit=limit)) for shard in shards)
        )
        found = [
            Entry(schedule, record, shard, now_ms)
            for shard, (now_ms, records) in zip(shards, pages, strict=True)
            for record in records
            if (schedule := read_definition(record.name, record.definition)) is not None
        ]
        return sorted(found, key=lambda entry: entry.schedule.name)[:limit]

    async def get(self, name: str) -> Entry:
        """Return one schedule.

        Raises:
            ScheduleMissing: there is none of this name.
        """
        for entry in await self._find(name):
            return entry
        raise ScheduleMissing(f"there is no schedule {name[:64]!r}")

    async def _find(self, name: str) -> list[Entry]:
        """Look for a name in all shards, since its owner is not known."""
        shards = range(self._keyspace.shards)
        found = await asyncio.gather(
            *(self._store.run(commands.read_schedule(shard, name)) for shard in shards)
        )
        return [
            Entry(schedule, read.record, shard, read.now_ms)
            for shard, read in zip(shards, found, strict=True)
            if read.record is not None
            and (schedule := read_definition(name, read.record.definition)) is not None
        ]

    def check(self, schedule: Schedule) -> None:
        """Check what only the registered types can tell.

        Raises:
            UnknownJobType: there is no such type.
            InvalidInput: the input or the queue is not valid, with an entry for each field.
        """
        self._press.make_run(schedule, 0)
        if len(encode_definition(schedule)) > MAX_DEFINITION_BYTES:
            message = f"the schedule has more than {MAX_DEFINITION_BYTES:,} bytes; let the job read the rest from elsewhere"
            raise InvalidInput(
                f"input: {message}", errors=[FieldError(field="input", code="too_large", message=message)]
            )

    async def create(self, schedule: Schedule) -> Entry:
        """Store a new schedule.

        Raises:
            ScheduleConflict: there is one of this name, or there are too many.
            UnknownJobType, InvalidInput: see ``check``.
        """
        self.check(schedule)
        taken = ScheduleConflict(f"there is a schedule {schedule.name!r} already; PUT replaces it")
        if await self._find(schedule.name):
            raise taken
        outcome = await self.put(schedule, origin=API, must="new")
        if outcome is PutOutcome.FULL:
            raise ScheduleConflict(f"there are {MAX_SCHEDULES} schedules; delete one first")
        if outcome is PutOutcome.EXISTS:
            raise taken
        found = await self._find(schedule.name)
        if len(found) > 1:
            # Another owner's, in another shard, at this very moment. Neither knows who was first.
            own = self._keyspace.shard_of_tenant(schedule.tenant)
            await self._store.run(commands.drop_schedule(own, schedule.name, origin=API))
            raise taken
        return found[0] if found else await self.get(schedule.name)

    async def replace(self, schedule: Schedule) -> Entry:
        """Put a new definition in the place of the one of this name.

        Raises:
            ScheduleMissing: there is none of this name.
            ScheduleConflict: it is the settings', or another owner's.
            UnknownJobType, InvalidInput: see ``check``.
        """
        former = _own(await self.get(schedule.name))
        if former.schedule.tenant != schedule.tenant:
            raise ScheduleConflict(
                "owner and org of a schedule stay as they are; delete it and make it anew for another owner"
            )
        self.check(schedule)
        if await self.put(schedule, origin=API, must="old") is PutOutcome.GONE:
            raise ScheduleMissing(f"there is no schedule {schedule.name!r}")
        return await self.get(schedule.name)

    async def put(
        self, schedule: Schedule, *, origin: str, must: Literal["new", "old", "any"] = "any"
    ) -> PutOutcome:
        """Store a definition that was checked; see ``put_schedule.lua``."""
        shard = self._keyspace.shard_of_tenant(schedule.tenant)
        now_ms = (await self._store.run(commands.read_schedule(shard, schedule.name))).now_ms
        return await self._store.run(
            commands.put_schedule(
                shard,
                schedule.name,
                version=secrets.token_hex(8),
                definition=encode_definition(schedule),
                origin=origin,
                timing=f"{schedule.cron} {schedule.every_s} {schedule.time_zone} {schedule.enabled}",
                next_ms=_next_ms(schedule, now_ms),
                must=must,
            )
        )

    async def delete(self, name: str) -> None:
        """Remove a schedule; its jobs stay.

        Raises:
            ScheduleMissing: there is none of this name.
            ScheduleConflict: it is the settings'.
        """
        entry = _own(await self.get(name))
        if await self._store.run(commands.drop_schedule(entry.shard, name, origin=API)) == "gone":
            raise ScheduleMissing(f"there is no schedule {name!r}")

    async def pause(self, name: str) -> Entry:
        """Let a schedule rest. What is due meanwhile is passed over. Raises ``ScheduleMissing``."""
        entry = await self.get(name)
        await self._store.run(commands.pause_schedule(entry.shard, name, pause=True))
        return await self.get(name)

    async def resume(self, name: str) -> Entry:
        """Let a paused schedule go on with its next due time from now. Raises ``ScheduleMissing``."""
        entry = await self.get(name)
        next_ms = _next_ms(entry.schedule, entry.now_ms)
        await self._store.run(commands.pause_schedule(entry.shard, name, pause=False, next_ms=next_ms))
        return await self.get(name)

    async def run(self, name: str) -> str:
        """Store a job of the schedule now, whatever is open and also while it is paused. Returns the job's id.

        Raises:
            ScheduleMissing: there is none of this name.
            ScheduleConflict: it was changed at this moment.
            QueueFull, QueueDraining: the queue takes no job now.
            UnknownJobType, InvalidInput: its type or input is not valid any more.
        """
        entry = await self.get(name)
        shard, job = self._press.make_run(
            entry.schedule, entry.now_ms, job_id=new_job_id(entry.shard, now_ms=entry.now_ms)
        )
        outcome = await self._store.run(
            commands.run_schedule(shard, name, version=entry.record.version, job=job)
        )
        if outcome == "gone":
            raise ScheduleMissing(f"there is no schedule {name!r}")
        if outcome == "changed":
            raise ScheduleConflict("the schedule was changed at this moment; try again")
        if outcome == "draining":
            raise QueueDraining(f"the queue {job.queue} takes no new jobs: it is being drained")
        if outcome != "created":
            raise QueueFull(f"the queue {job.queue} is full", retry_after_s=5)
        return job.id

    async def next_runs(self, name: str, count: int) -> tuple[Entry, list[int]]:
        """Return a schedule and its next due times, as if it were neither paused nor disabled. Raises ``ScheduleMissing``."""
        entry = await self.get(name)
        return entry, list(islice(next_runs(entry.schedule.timing, entry.now_ms), count))


def encode_definition(schedule: Schedule) -> bytes:
    """Encode for the store. What is usual is left out, so that older processes read it while nothing new is used."""
    return schedule.model_dump_json(exclude_defaults=True).encode()


def read_definition(name: str, text: bytes) -> Schedule | None:
    """Decode what the store keeps; None, and logged, when a newer version wrote what this one does not know."""
    try:
        return Schedule.model_validate_json(text)
    except ValidationError as error:
        _log.warning("schedule %s cannot be read by this version and is left to others: %s", name, error)
        return None


def _next_ms(schedule: Schedule, now_ms: int) -> int | None:
    return schedule.timing.next_after(now_ms) if schedule.enabled else None


def _own(entry: Entry) -> Entry:
    if entry.record.origin == SETTINGS:
        raise ScheduleConflict(
            f"schedule {entry.schedule.name!r} is declared in the settings; change it there, in [schedules.{entry.schedule.name}]"
        )
    return entry
