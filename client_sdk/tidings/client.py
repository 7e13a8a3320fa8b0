"""The asyncio client: submit jobs, look at them, steer them, and follow them live."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from .admin import Admin
from .cursor import Cursor, Snapshot
from .files import download, download_to, upload
from .http import Http, base_url, read_answer
from .many import cancel_jobs, submit_many
from .policy import WatchPolicy
from .protocol.bulk import CancelJobs, CancelledJobs
from .protocol.errors import JobFailed, JobNotFound, JobWasCancelled
from .protocol.ids import is_job_id
from .protocol.models import FileInfo, Job, JobPage, JobStats, JobStatus, JobTypeInfo, SubmitJob
from .protocol.states import EventKind, JobState
from .submitting import body_of, change_of
from .tokens import Token, TokenSource
from .transport import ConnectionState
from .transport.longpoll import LongPoll
from .transport.socketio import SocketIo
from .transport.sse import ServerSentEvents
from .watching import Watch

__all__ = ["Client"]

MAX_STATUS_WAIT_S = 55.0
MAX_PAGE_JOBS = 100


class Client:
    """One caller's view of one server.

    Use it as ``async with Client(url, token) as client``, or call `close()` when done: it holds connections. It
    belongs to the event loop it is first used on; many tasks may use it at once. All its watches share one
    Socket.IO connection. ``admin`` has the operator's calls.

    Args:
        url: Of the server, such as ``http://127.0.0.1:8000``; a path in it is a prefix.
        token: A JWT, or a callable that returns one or an awaitable of one. A callable is asked first when a
            token is needed, and again when the server says that it has expired.
        timeout_s: Bound of one attempt of a REST call.
        retries: How often a REST call that failed for the moment is repeated, where that is safe.
        watch_policy: How watches reconnect and change transports.

    Raises:
        ValueError: the URL or the token can't be one.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        timeout_s: float = 30.0,
        retries: int = 3,
        watch_policy: WatchPolicy | None = None,
    ) -> None:
        self._policy = watch_policy or WatchPolicy()
        self._http = Http(
            base_url(url),
            TokenSource(token),
            timeout_s=timeout_s,
            retries=retries,
            backoff=self._policy.backoff,
        )
        self.admin = Admin(self._http)
        self._socket = SocketIo(self._http, self._policy)
        self._transports = (
            self._socket,
            ServerSentEvents(self._http, self._policy),
            LongPoll(self._http, self._policy),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Watches that are still open raise. Safe to repeat."""
        await self._socket.close()
        await self._http.close()

    async def submit(
        self,
        type: str,
        input: Mapping[str, Any] | BaseModel | None = None,
        *,
        queue: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        delay_s: float | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        concurrency_key: str | None = None,
        expires_at: datetime | None = None,
        expires_in_s: float | None = None,
        dedup_key: str | None = None,
        dedup_ttl_s: float | None = None,
        debounce: bool = False,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a job and return it as the server has stored it.

        A reply that got lost does not make a second job: the request is repeated under one Idempotency-Key,
        the given one or a random one.

        Args:
            concurrency_key: Of the owner's jobs with this key only so many run at once as the type says, usually one.
            expires_at: Not begun by then, the job fails as ``expired``; or give ``expires_in_s``.
            dedup_key: While a job with this key is open, or for ``dedup_ttl_s``, it is returned instead of a new one.
            debounce: Such a repeat also replaces the input and moves the due time of the job that waits.

        Raises:
            InvalidInput: with one entry a field in ``errors``; also when the fault is found before sending.
            TidingsError: `UnknownJobType`, `RateLimited`, `QueueFull`, `StoreUnavailable`, `ConnectionLost` …
        """
        body = body_of(
            type,
            input,
            queue=queue,
            priority=priority,
            run_at=run_at,
            delay_s=delay_s,
            tags=tags,
            metadata=metadata,
            concurrency_key=concurrency_key,
            expires_at=expires_at,
            expires_in_s=expires_in_s,
            dedup_key=dedup_key,
            dedup_ttl_s=dedup_ttl_s,
            debounce=debounce,
        )
        answer = await self._http.call(
            "POST",
            "api/jobs",
            body=body,
            headers={"Idempotency-Key": idempotency_key or secrets.token_urlsafe(18)},
            repeatable=True,
        )
        return read_answer(Job, answer)

    async def submit_many(
        self, jobs: Iterable[SubmitJob | Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> list[Job]:
        """Submit 1 to 1,000 jobs, all or none, and return them in the order given.

        Args:
            jobs: Each a `SubmitJob` or a dict of its fields, as `POST /api/jobs` takes them.
            idempotency_key: Of the whole batch; as for `submit`.

        Raises:
            InvalidInput: fields are named like ``jobs.17.input.steps``; and what `submit` raises.
        """
        return await submit_many(self._http, jobs, idempotency_key)

    async def get(self, job_id: str) -> Job:
        """Return the whole job. Raises `JobNotFound`, also for a job of somebody else."""
        return read_answer(Job, await self._http.call("GET", _job_path(job_id)))

    async def status(
        self, job_id: str, *, wait_s: float | None = None, known: JobStatus | None = None
    ) -> JobStatus:
        """Return the compact status.

        Args:
            job_id: The job.
            wait_s: Let the server hold the answer this long, at most 55 s, until the position changes.
            known: An earlier answer. If nothing has changed since, it is returned again; with ``wait_s`` the
                server waits for a change since then instead of since now.
        """
        params = {} if wait_s is None else {"wait": f"{min(max(wait_s, 0.0), MAX_STATUS_WAIT_S):g}"}
        headers = {} if known is None else {"If-None-Match": f'W/"{known.position}"'}
        answer = await self._http.call(
            "GET",
            f"{_job_path(job_id)}/status",
            params=params,
            headers=headers,
            timeout_s=self._http.timeout_s + (wait_s or 0.0),
        )
        return known if answer.status == 304 and known is not None else read_answer(JobStatus, answer)

    async def jobs_page(
        self,
        *,
        status: JobState | str | None = None,
        type: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        parent: str | None = None,
        created_after: datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> JobPage:
        """Return one page of the caller's jobs, newest first; ``next_cursor`` leads to the next page.

        ``parent``: the steps of this flow, as far as they are jobs.
        """
        filters = {
            "status": None if status is None else str(status),
            "type": type,
            "queue": queue,
            "tag": tag,
            "parent": parent,
            "created_after": None if created_after is None else created_after.isoformat(),
            "limit": None if limit is None else str(limit),
            "cursor": cursor,
        }
        params = {name: value for name, value in filters.items() if value is not None}
        return read_answer(JobPage, await self._http.call("GET", "api/jobs", params=params))

    async def jobs(
        self,
        *,
        status: JobState | str | None = None,
        type: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        parent: str | None = None,
        created_after: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Job]:
        """Iterate over the caller's jobs, newest first, over all pages, ``limit`` jobs at most."""
        left, cursor = limit, None
        while left is None or left > 0:
            page = await self.jobs_page(
                status=status, type=type, queue=queue, tag=tag, parent=parent, created_after=created_after,
                limit=MAX_PAGE_JOBS if left is None else min(left, MAX_PAGE_JOBS), cursor=cursor,
            )  # fmt: skip
            for job in page.jobs[:left]:
                yield job
            left = None if left is None else left - len(page.jobs)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def cancel(self, job_id: str, *, reason: str | None = None) -> Job:
        """Ask for a job's end: at once when it has not begun, else when its function next looks.

        ``reason`` is told by the `cancelled` event of a job that had not begun.

        Raises:
            IllegalState: it has ended already.
        """
        body = None if reason is None else {"reason": reason}
        return read_answer(Job, await self._http.call("POST", f"{_job_path(job_id)}/cancel", body=body))

    async def cancel_jobs(self, wanted: CancelJobs) -> CancelledJobs:
        """Cancel one's own open jobs by filter, in as many calls as it takes, and return the sums.

        `CancelJobs` says what is meant: filters that must all hold, or ``all=True``; with ``dry_run`` it only counts.
        """
        return await cancel_jobs(self._http, wanted)

    async def change(
        self,
        job_id: str,
        *,
        priority: int | None = None,
        run_at: datetime | None = None,
        delay_s: float | None = None,
    ) -> Job:
        """Change a waiting job's priority, its due time, or both.

        Raises:
            IllegalState: it runs, or has ended.
        """
        body = change_of(priority=priority, run_at=run_at, delay_s=delay_s)
        return read_answer(Job, await self._http.call("PATCH", _job_path(job_id), body=body, repeatable=True))

    async def retry(self, job_id: str) -> Job:
        """Submit a failed or cancelled job again and return the new one, whose ``retry_of`` is ``job_id``.

        Raises:
            IllegalState: it has not ended, or has succeeded.
        """
        return read_answer(Job, await self._http.call("POST", f"{_job_path(job_id)}/retry"))

    async def delete(self, job_id: str) -> None:
        """Remove an ended job with its log, result and files. Raises `IllegalState` when it has not ended."""
        await self._http.call("DELETE", _job_path(job_id))

    def watch(
        self,
        job_id: str,
        after: str | None = "0",
        *,
        on_connection: Callable[[ConnectionState], None] | None = None,
    ) -> Watch:
        """Return an iterator over the job's events that resumes by itself and ends behind the terminal event.

        Each event comes exactly once and in order, whatever drops in between; folded progress is skipped. When
        the history behind the reader is gone, a `Reset` comes instead, with the job as it is.

        Args:
            job_id: The job.
            after: A position, such as an earlier watch's `Watch.position`; ``"0"`` for the whole log; None for
                a `Snapshot` of the job first and then what is new.
            on_connection: Called with each change of the connection, ``live``, ``polling`` or ``offline``.

        Raises:
            ValueError: ``after`` has not the form of a position.
            JobNotFound: as every other refusal, from the iteration; at once only for what is no job id at all.
        """
        _job_path(job_id)

        async def snapshot() -> Snapshot:
            job = await self.get(job_id)
            return Snapshot(job=job, position=job.position)

        cursor = None if after is None else Cursor(after)
        return Watch(job_id, cursor, self._transports, self._policy, snapshot, on_connection)

    async def result(self, job_id: str, timeout_s: float | None = None) -> Any:
        """Wait for the job's end and return its result.

        Raises:
            JobFailed: it failed; ``error`` says why.
            JobWasCancelled: it was cancelled.
            TimeoutError: it has not ended within ``timeout_s``. The job goes on.
        """
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit, self.watch(job_id, None) as watch:
                async for item in watch:
                    if isinstance(item, Snapshot):
                        if item.job.status.is_terminal:
                            return await self._outcome(item.job)
                    elif item.kind is EventKind.COMPLETED and "result" in item.data:
                        return item.data["result"]
                return await self._outcome(await self.get(job_id))
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(f"job {job_id} has not ended within {timeout_s:g} s; it goes on") from error

    async def _outcome(self, job: Job) -> Any:
        if job.status is JobState.FAILED:
            raise JobFailed(job.id, job.error.model_dump() if job.error else {})
        if job.status is JobState.CANCELLED:
            raise JobWasCancelled(job.id)
        if job.result_ref is None:
            return job.result
        accept = {"Accept": "application/json"}
        return (await self._http.call("GET", f"{_job_path(job.id)}/result", headers=accept)).json()

    async def upload(
        self, source: Path | str | bytes, *, name: str | None = None, media_type: str | None = None
    ) -> FileInfo:
        """Store a file for use in a job's input; it is read into memory as a whole.

        Args:
            source: A path, or the content itself.
            name: Instead of the path's own.
            media_type: Instead of the one that the name suggests.

        Raises:
            OSError: the file can't be read.
        """
        return await upload(self._http, source, name=name, media_type=media_type)

    async def download(self, file_id: str, *, max_bytes: int = 64 << 20) -> bytes:
        """Return a file's content. Raises `PayloadTooLarge` for one over ``max_bytes``."""
        return await download(self._http, file_id, max_bytes)

    async def download_to(self, file_id: str, path: Path | str) -> Path:
        """Write a file's content to ``path``, which appears only when it is complete, and return the path."""
        return await download_to(self._http, file_id, Path(path))

    async def job_types(self) -> list[JobTypeInfo]:
        """Return the registered job types, each with the JSON Schema of its input."""
        answer = await self._http.call("GET", "api/job-types")
        return read_answer(_JobTypes, answer).job_types

    async def stats(self) -> JobStats:
        """Return the caller's counts of jobs by state."""
        return read_answer(JobStats, await self._http.call("GET", "api/jobs/stats"))


class _JobTypes(BaseModel):
    job_types: list[JobTypeInfo]


def _job_path(job_id: str) -> str:
    if not is_job_id(job_id):
        raise JobNotFound(f"{job_id[:80]!r} is not a job id")
    return f"api/jobs/{job_id}"
