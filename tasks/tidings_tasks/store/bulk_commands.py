"""Commands that read many jobs in one call: those just stored, and an owner's open ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .commands import Command
from .keys import Tenant
from .record import JobRecord

__all__ = ["list_open", "read_jobs"]


def read_jobs(shard: int, ids: Sequence[str]) -> Command[list[JobRecord | None]]:
    """Read jobs of one shard, in the order of their ids; None for one that is gone."""

    def parse(reply: Any) -> list[JobRecord | None]:
        return [None if parts is None else JobRecord.from_parts(parts) for parts in reply]

    return Command("read_jobs", shard, ids, parse)


def list_open(
    shard: int, tenant: Tenant, *, after_id: str = "", limit: int = 100
) -> Command[list[JobRecord]]:
    """Read an owner's open jobs, newest first, from behind ``after_id``. None left: an empty list."""

    def parse(reply: Any) -> list[JobRecord]:
        return [JobRecord.from_parts(parts) for parts in reply]

    return Command("list_open", shard, [tenant.scope, after_id, limit], parse)
