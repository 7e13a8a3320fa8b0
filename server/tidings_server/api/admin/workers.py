"""The workers that live, as they last described themselves."""

from __future__ import annotations

from aiohttp import web

from tidings.protocol.admin import WorkerList
from tidings_tasks.store import iso_time
from tidings_tasks.store.worker_commands import WorkerInfo, list_workers

from ...context import STORE
from ..answers import json_answer
from ..examples import AT
from ..route import Answer, Route

__all__ = ["ROUTES"]

_EXAMPLE = {
    "id": "web-1-4711", "host": "web-1", "pid": 4711, "profile": "primary", "queues": ["critical", "reports"],
    "concurrency": 10, "running": [], "running_count": 0, "rss_bytes": 91_234_304, "version": "0.1.0",
    "runtime": "tidings", "started_at": AT, "done": 120, "failed": 2, "is_stopping": False, "seen_at": AT,
}  # fmt: skip


async def list_all(request: web.Request) -> web.StreamResponse:
    """Answer the workers, by name."""
    found = await request.app[STORE].run(list_workers())
    return json_answer({"workers": [_view(worker) for worker in found]})


def _view(worker: WorkerInfo) -> dict[str, object]:
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "profile": worker.profile,
        "queues": list(worker.queues),
        "concurrency": worker.concurrency,
        "running": [
            {"id": job.id, "type": job.type, "since": iso_time(job.since_ms)} for job in worker.running
        ],
        "running_count": worker.running_count,
        "rss_bytes": worker.rss_bytes,
        "version": worker.version,
        "runtime": worker.runtime,
        "started_at": iso_time(worker.started_ms),
        "done": worker.done,
        "failed": worker.failed,
        "is_stopping": worker.is_stopping,
        "seen_at": iso_time(worker.beat_ms),
    }


ROUTES = (
    Route(
        method="GET",
        path="/api/admin/workers",
        name="listWorkers",
        handle=list_all,
        tag="admin",
        summary="List the workers",
        description="A worker that was killed stays in the list for some seconds, until its last word is out of date.",
        answers=(Answer(description="The workers.", model=WorkerList, example={"workers": [_EXAMPLE]}),),
        is_admins=True,
    ),
)
