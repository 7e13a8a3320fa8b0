"""The synchronous client: a thin face over `Client`, which runs on an event loop in a thread of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from .admin import SyncAdmin
from .client import Client
from .cursor import WatchItem
from .loop_thread import LoopThread
from .policy import WatchPolicy
from .protocol.bulk import CancelJobs, CancelledJobs
from .protocol.models import FileInfo, Job, JobPage, JobStats, JobStatus, JobTypeInfo, SubmitJob
from .protocol.states import JobState
from .tokens import Token
from .transport import ConnectionState
from .watching import Watch

__all__ = ["SyncClient", "SyncWatch"]

_T = TypeVar("_T")


class SyncClient:
    """`Client` without ``await``: the same methods, arguments and errors.

    Use it as ``with SyncClient(url, token) as client``, or call `close()` when done. Several threads may use it
    at once. A token callable and ``on_connection`` run on the client's own thread and must not call the client.
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
        self._client = Client(url, token, timeout_s=timeout_s, retries=retries, watch_policy=watch_policy)
        self._thread = LoopThread("tidings-client")
        self.admin = SyncAdmin(self._client.admin, self._thread)
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and the thread. Safe to repeat."""
        if not self._closed:
            self._closed = True
            try:
                self._thread.run(self._client.close())
            finally:
                self._thread.close()

    def submit(
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
        """See `Client.submit`."""
        return self._thread.run(
            self._client.submit(
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
                idempotency_key=idempotency_key,
            )
        )

    def submit_many(
        self, jobs: Iterable[SubmitJob | Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> list[Job]:
        """See `Client.submit_many`."""
        return self._thread.run(self._client.submit_many(jobs, idempotency_key=idempotency_key))

    def get(self, job_id: str) -> Job:
        """See `Client.get`."""
        return self._thread.run(self._client.get(job_id))

    def status(
        self, job_id: str, *, wait_s: float | None = None, known: JobStatus | None = None
    ) -> JobStatus:
        """See `Client.status`."""
        return self._thread.run(self._client.status(job_id, wait_s=wait_s, known=known))

    def jobs_page(
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
        """See `Client.jobs_page`."""
        return self._thread.run(
            self._client.jobs_page(
                status=status,
                type=type,
                queue=queue,
                tag=tag,
                parent=parent,
                created_after=created_after,
                limit=limit,
                cursor=cursor,
            )
        )

    def jobs(
        self,
        *,
        status: JobState | str | None = None,
        type: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        parent: str | None = None,
        created_after: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """See `Client.jobs`."""
        jobs = self._client.jobs(
            status=status, type=type, queue=queue, tag=tag, parent=parent, created_after=created_after,
            limit=limit,
        )  # fmt: skip
        while (job := self._thread.run(_next(jobs))) is not None:
            yield job

    def cancel(self, job_id: str, *, reason: str | None = None) -> Job:
        """See `Client.cancel`."""
        return self._thread.run(self._client.cancel(job_id, reason=reason))

    def cancel_jobs(self, wanted: CancelJobs) -> CancelledJobs:
        """See `Client.cancel_jobs`."""
        return self._thread.run(self._client.cancel_jobs(wanted))

    def change(
        self,
        job_id: str,
        *,
        priority: int | None = None,
        run_at: datetime | None = None,
        delay_s: float | None = None,
    ) -> Job:
        """See `Client.change`."""
        return self._thread.run(
            self._client.change(job_id, priority=priority, run_at=run_at, delay_s=delay_s)
        )

    def retry(self, job_id: str) -> Job:
        """See `Client.retry`."""
        return self._thread.run(self._client.retry(job_id))

    def delete(self, job_id: str) -> None:
        """See `Client.delete`."""
        self._thread.run(self._client.delete(job_id))

    def watch(
        self,
        job_id: str,
        after: str | None = "0",
        *,
        on_connection: Callable[[ConnectionState], None] | None = None,
    ) -> SyncWatch:
        """See `Client.watch`; leave it early with `SyncWatch.close` or by ``with``."""
        return SyncWatch(self._client.watch(job_id, after, on_connection=on_connection), self._thread)

    def result(self, job_id: str, timeout_s: float | None = None) -> Any:
        """See `Client.result`."""
        return self._thread.run(self._client.result(job_id, timeout_s))

    def upload(
        self, source: Path | str | bytes, *, name: str | None = None, media_type: str | None = None
    ) -> FileInfo:
        """See `Client.upload`."""
        return self._thread.run(self._client.upload(source, name=name, media_type=media_type))

    def download(self, file_id: str, *, max_bytes: int = 64 << 20) -> bytes:
        """See `Client.download`."""
        return self._thread.run(self._client.download(file_id, max_bytes=max_bytes))

    def download_to(self, file_id: str, path: Path | str) -> Path:
        """See `Client.download_to`."""
        return self._thread.run(self._client.download_to(file_id, path))

    def job_types(self) -> list[JobTypeInfo]:
        """See `Client.job_types`."""
        return self._thread.run(self._client.job_types())

    def stats(self) -> JobStats:
        """See `Client.stats`."""
        return self._thread.run(self._client.stats())


class SyncWatch:
    """A `Watch` for ``for``: iterate it once, in one thread."""

    def __init__(self, watch: Watch, thread: LoopThread) -> None:
        self._watch = watch
        self._thread = thread

    @property
    def connection(self) -> ConnectionState:
        """How the watch is connected now."""
        return self._watch.connection

    @property
    def transport(self) -> str:
        """The name of the transport in use or being tried."""
        return self._watch.transport

    @property
    def position(self) -> str:
        """Behind the last item that was yielded; a later watch can go on from here."""
        return self._watch.position

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchItem:
        item = self._thread.run(_next(self._watch))
        if item is None:
            raise StopIteration
        return item

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching and release the connection. Safe to repeat."""
        self._thread.run(self._watch.aclose())


async def _next(items: AsyncIterator[_T]) -> _T | None:
    return await anext(items, None)
