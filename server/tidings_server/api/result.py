"""A job's result alone, or the way to the file that is the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from tidings.protocol import JobState
from tidings.protocol.errors import IllegalState, JobNotFound
from tidings_tasks.files import is_file_id
from tidings_tasks.store import JobRecord

from .access import find_job
from .answers import json_answer
from .route import Answer, HeaderField, Route

__all__ = ["ROUTES", "ResultFile", "result_file"]


@dataclass(frozen=True, slots=True)
class ResultFile:
    """The file that a result names in its member ``file``. What a job returned is not trusted."""

    id: str
    url: str


def result_file(record: JobRecord) -> ResultFile | None:
    """Return the file that the job's result is, if it is one of ours."""
    if record.result is None:
        return None
    result: Any = orjson.loads(record.result)
    named = result.get("file") if isinstance(result, dict) else None
    if not isinstance(named, dict):
        return None
    file_id = named.get("id")
    if not isinstance(file_id, str) or not is_file_id(file_id) or named.get("url") != f"/api/files/{file_id}":
        return None
    return ResultFile(file_id, f"/api/files/{file_id}")


async def read_result(request: web.Request) -> web.StreamResponse:
    """Answer the result of a completed job, as the JSON that the function returned."""
    record = await find_job(request)
    if record.state is not JobState.COMPLETED:
        raise _no_result(record)
    file = result_file(record)
    if file is not None and not _prefers_json(request):
        return web.Response(status=303, headers={"Location": file.url, "Cache-Control": "private, no-cache"})
    return json_answer(
        orjson.Fragment(record.result or b"null"),
        headers={"Cache-Control": "private, no-cache", "Vary": "Authorization, Accept"},
    )


def _no_result(record: JobRecord) -> IllegalState:
    if record.state is JobState.FAILED:
        code = orjson.loads(record.error).get("code") if record.error else None
        return IllegalState(f"the job failed ({code}) and has no result; its `error` says why")
    if record.state is JobState.CANCELLED:
        return IllegalState("the job was cancelled and has no result")
    return IllegalState(f"the job is {record.state}; it has no result yet")


def _prefers_json(request: web.Request) -> bool:
    """Whether the first thing that ``Accept`` names is JSON."""
    return request.headers.get("Accept", "").lower().lstrip().startswith("application/json")


ROUTES = (
    Route(
        method="GET",
        path="/api/jobs/{id}/result",
        name="readJobResult",
        handle=read_result,
        tag="jobs",
        summary="Read a job's result",
        description=(
            "A result whose member `file` names a file is answered by a redirect to it, unless `Accept` begins with "
            "`application/json`. A job without a result (not ended, failed, cancelled) answers 409 `illegal_state`."
        ),
        answers=(
            Answer(description="What the job's function returned.", model=Any),
            Answer(
                status=303,
                description="The result is a file.",
                headers=(HeaderField("Location", "Where the file is."),),
            ),
        ),
        errors=(JobNotFound, IllegalState),
    ),
)
