"""What operators do with an installation: dead letters, queues, workers, dependencies, schedules. Needs the scope `admin`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from .http import Http, read_answer
from .protocol.admin import (
    DeadFilter,
    DeadGroup,
    DeadGroups,
    DeadLetter,
    DeadPage,
    Dependencies,
    Dependency,
    Purge,
    Purged,
    Queue,
    QueueList,
    Retried,
    Worker,
    WorkerList,
)
from .protocol.errors import JobNotFound
from .protocol.ids import is_job_id
from .protocol.models import Job
from .protocol.schedules import ScheduleInfo, SchedulePage, ScheduleRuns

__all__ = ["Admin", "SyncAdmin"]

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

QueueAction = Literal["pause", "resume", "drain"]
ScheduleAction = Literal["pause", "resume"]


class Admin:
    """The operator's calls of a `Client`, which makes it. Every call raises `Forbidden` without the scope `admin`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def queues(self) -> list[Queue]:
        """Return all queues, by name: how they stand, and how they are set up."""
        return (await self._get(QueueList, "queues")).queues

    async def steer_queue(self, name: str, action: QueueAction) -> Queue:
        """Pause, resume or drain a queue, at once on all workers. Raises `NotFound`, with near names."""
        return await self._post(Queue, f"queues/{quote(name, safe='')}/{action}", None)

    async def purge_queue(self, name: str, *, dry_run: bool = True) -> Purged:
        """Cancel the queue's waiting jobs, of all owners; or, unless told otherwise, only count them."""
        total = Purged(matched=0, purged=0)
        while True:
            body = Purge(dry_run=dry_run, cursor=total.next_cursor)
            page = await self._post(Purged, f"queues/{quote(name, safe='')}/purge", body)
            total = _add(total, page)
            if total.next_cursor is None:
                return total

    async def dead(
        self,
        *,
        queue: str | None = None,
        type: str | None = None,
        fingerprint: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> DeadPage:
        """Return a page of dead letters, the latest first; ``next_cursor`` leads to the next one."""
        given = {"queue": queue, "type": type, "fingerprint": fingerprint, "limit": limit, "cursor": cursor}
        params = {name: str(value) for name, value in given.items() if value is not None}
        return read_answer(DeadPage, await self._http.call("GET", "api/admin/dead", params=params))

    async def dead_groups(self) -> list[DeadGroup]:
        """Return dead letters in groups of errors that look the same, the largest first."""
        return (await self._get(DeadGroups, "dead/groups")).groups

    async def dead_letter(self, job_id: str) -> DeadLetter:
        """Return one dead letter whole, with its traceback and the end of its log."""
        return await self._get(DeadLetter, f"dead/{_checked(job_id)}")

    async def retry_dead(self, job_id: str) -> Job:
        """Submit a dead letter again and return the new job; a repeat within a day returns the same one."""
        return await self._post(Job, f"dead/{_checked(job_id)}/retry", None)

    async def retry_dead_letters(self, wanted: DeadFilter) -> Retried:
        """Submit dead letters again by filter; with ``dry_run``, the default of `DeadFilter`, only count them."""
        return await self._over_pages(Retried, "dead/retry", wanted)

    async def purge_dead_letters(self, wanted: DeadFilter) -> Purged:
        """Delete dead letters by filter; with ``dry_run``, the default of `DeadFilter`, only count them."""
        return await self._over_pages(Purged, "dead/purge", wanted)

    async def workers(self) -> list[Worker]:
        """Return the workers that live, by name."""
        return (await self._get(WorkerList, "workers")).workers

    async def dependencies(self) -> list[Dependency]:
        """Return the dependencies that have failed lately, by name."""
        return (await self._get(Dependencies, "dependencies")).dependencies

    async def schedules(self) -> list[ScheduleInfo]:
        """Return all schedules, by name."""
        found: list[ScheduleInfo] = []
        params: dict[str, str] = {}
        while True:
            answer = await self._http.call("GET", "api/admin/schedules", params=params)
            page = read_answer(SchedulePage, answer)
            found += page.schedules
            if page.next_cursor is None:
                return found
            params = {"cursor": page.next_cursor}

    async def steer_schedule(self, name: str, action: ScheduleAction) -> ScheduleInfo:
        """Pause or resume a schedule; what is due while it is paused is passed over. Raises `ScheduleMissing`."""
        return await self._post(ScheduleInfo, f"schedules/{quote(name, safe='')}/{action}", None)

    async def run_schedule(self, name: str) -> Job:
        """Run a schedule now and return the job; each call makes one. Raises `ScheduleMissing`."""
        path = f"api/admin/schedules/{quote(name, safe='')}/run"
        return read_answer(Job, await self._http.call("POST", path))

    async def schedule_runs(self, name: str, count: int = 10) -> ScheduleRuns:
        """Return the next due times of a schedule, 1 to 100. Raises `ScheduleMissing`."""
        path = f"api/admin/schedules/{quote(name, safe='')}/next"
        return read_answer(ScheduleRuns, await self._http.call("GET", path, params={"count": str(count)}))

    async def _over_pages(self, model: type[M], path: str, wanted: DeadFilter) -> M:
        total: M | None = None
        cursor = wanted.cursor
        while True:
            page = await self._post(model, path, wanted.model_copy(update={"cursor": cursor}))
            total = page if total is None else _add(total, page)
            cursor = getattr(total, "next_cursor", None)
            if cursor is None:
                return total

    async def _get(self, model: type[M], path: str) -> M:
        return read_answer(model, await self._http.call("GET", f"api/admin/{path}"))

    async def _post(self, model: type[M], path: str, body: BaseModel | None) -> M:
        # What these calls do, they do once: a repeat finds it done.
        sent = None if body is None else body.model_dump(mode="json", exclude_none=True)
        answer = await self._http.call("POST", f"api/admin/{path}", body=sent, repeatable=True)
        return read_answer(model, answer)


class _Runner(Protocol):
    def run(self, work: Coroutine[Any, Any, T], /) -> T: ...


class SyncAdmin:
    """`Admin` without ``await``: the same methods, arguments and errors."""

    def __init__(self, admin: Admin, runner: _Runner) -> None:
        self._admin = admin
        self._runner = runner

    def queues(self) -> list[Queue]:
        """See `Admin.queues`."""
        return self._runner.run(self._admin.queues())

    def steer_queue(self, name: str, action: QueueAction) -> Queue:
        """See `Admin.steer_queue`."""
        return self._runner.run(self._admin.steer_queue(name, action))

    def purge_queue(self, name: str, *, dry_run: bool = True) -> Purged:
        """See `Admin.purge_queue`."""
        return self._runner.run(self._admin.purge_queue(name, dry_run=dry_run))

    def dead(
        self,
        *,
        queue: str | None = None,
        type: str | None = None,
        fingerprint: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> DeadPage:
        """See `Admin.dead`."""
        return self._runner.run(
            self._admin.dead(queue=queue, type=type, fingerprint=fingerprint, limit=limit, cursor=cursor)
        )

    def dead_groups(self) -> list[DeadGroup]:
        """See `Admin.dead_groups`."""
        return self._runner.run(self._admin.dead_groups())

    def dead_letter(self, job_id: str) -> DeadLetter:
        """See `Admin.dead_letter`."""
        return self._runner.run(self._admin.dead_letter(job_id))

    def retry_dead(self, job_id: str) -> Job:
        """See `Admin.retry_dead`."""
        return self._runner.run(self._admin.retry_dead(job_id))

    def retry_dead_letters(self, wanted: DeadFilter) -> Retried:
        """See `Admin.retry_dead_letters`."""
        return self._runner.run(self._admin.retry_dead_letters(wanted))

    def purge_dead_letters(self, wanted: DeadFilter) -> Purged:
        """See `Admin.purge_dead_letters`."""
        return self._runner.run(self._admin.purge_dead_letters(wanted))

    def workers(self) -> list[Worker]:
        """See `Admin.workers`."""
        return self._runner.run(self._admin.workers())

    def dependencies(self) -> list[Dependency]:
        """See `Admin.dependencies`."""
        return self._runner.run(self._admin.dependencies())

    def schedules(self) -> list[ScheduleInfo]:
        """See `Admin.schedules`."""
        return self._runner.run(self._admin.schedules())

    def steer_schedule(self, name: str, action: ScheduleAction) -> ScheduleInfo:
        """See `Admin.steer_schedule`."""
        return self._runner.run(self._admin.steer_schedule(name, action))

    def run_schedule(self, name: str) -> Job:
        """See `Admin.run_schedule`."""
        return self._runner.run(self._admin.run_schedule(name))

    def schedule_runs(self, name: str, count: int = 10) -> ScheduleRuns:
        """See `Admin.schedule_runs`."""
        return self._runner.run(self._admin.schedule_runs(name, count))


def _add(total: M, page: M) -> M:
    """Add the counts of two answers; the cursor is the later one's."""
    numbers = {
        name: value + getattr(total, name)
        for name, value in page.model_dump().items()
        if isinstance(value, int)
    }
    return page.model_copy(update=numbers)


def _checked(job_id: str) -> str:
    if not is_job_id(job_id):
        raise JobNotFound(f"{job_id[:80]!r} is not a job id")
    return job_id
