"""The one way to a job: well-formed id, a shard of this installation, and a caller who may see it; else 404 (P4)."""

from __future__ import annotations

from aiohttp import web

from tidings.protocol import is_job_id, shard_of
from tidings.protocol.errors import FieldError, JobNotFound
from tidings_tasks.store import JobRecord, commands

from ..context import STORE
from .route import identity_of

__all__ = ["find_job", "find_own_job", "job_id_of"]

_EXAMPLE = "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0"


def job_id_of(request: web.Request) -> str:
    """Return the id in the request's path.

    Raises:
        JobNotFound: it has not the form of an id, or names a shard that this installation does not have.
    """
    job_id = request.match_info["id"]
    if not is_job_id(job_id):
        raise JobNotFound(
            "there is no such job: the id is not of the form that ids have",
            errors=[FieldError(field="id", code="malformed_id", message=f"A job id looks like {_EXAMPLE}")],
        )
    # A shard beyond the installation's would be set up by the very call that asks for it.
    if shard_of(job_id) >= request.app[STORE].keyspace.shards:
        raise JobNotFound
    return job_id


async def find_job(request: web.Request) -> JobRecord:
    """Read the job in the request's path, for a caller who may see it.

    Raises:
        JobNotFound: there is none, or it is not for this caller; nobody can tell which.
    """
    record = await request.app[STORE].run(commands.read_job(job_id_of(request)))
    if record is None or not identity_of(request).may_read(record):
        raise JobNotFound
    return record


async def find_own_job(request: web.Request) -> JobRecord:
    """Read the job in the request's path, for a caller who may change it.

    Raises:
        JobNotFound: as in ``find_job``, and also when the caller may see the job but not change it.
    """
    record = await find_job(request)
    if not identity_of(request).may_write(record):
        raise JobNotFound
    return record
