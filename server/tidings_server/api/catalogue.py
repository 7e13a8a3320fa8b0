"""What there is to submit, and what the caller has: job types, counts by state, the rate that is left."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web
from pydantic import BaseModel, Field

from tidings.protocol import JobStats, JobTypeInfo
from tidings_tasks.registry import Registry
from tidings_tasks.store import commands, iso_time

from ..context import LIMITER, MODE, REGISTRY, SETTINGS, STORE
from .answers import json_answer
from .examples import JOB_TYPES, RATE_LIMIT, STATS
from .route import Answer, Route, identity_of

__all__ = ["ROUTES"]


class JobTypes(BaseModel):
    """The registered job types."""

    job_types: list[JobTypeInfo]


class RateLimit(BaseModel):
    """What the caller may still submit: jobs, retries and files. Each server process counts for itself."""

    limit: int = Field(description="Submissions a minute.")
    remaining: int = Field(description="Submissions that are left now.")
    reset_s: float = Field(description="Seconds until all of `limit` is there again.")


async def list_job_types(request: web.Request) -> web.StreamResponse:
    """Answer all registered types, by name."""
    registry: Registry = request.app[REGISTRY]
    queues = request.app[SETTINGS].queues
    return json_answer(
        {"job_types": [job_type.info(queues).model_dump(mode="json") for job_type in registry]}
    )


async def read_stats(request: web.Request) -> web.StreamResponse:
    """Answer the caller's counts."""
    store, tenant = request.app[STORE], identity_of(request).tenant
    counts = await store.run(commands.count_jobs(store.keyspace.shard_of_tenant(tenant), tenant))
    return json_answer(
        {
            "mode": request.app[MODE],
            "counts": {state.value: count for state, count in counts.items()},
            "total": sum(counts.values()),
            "timestamp": iso_time(int(datetime.now(UTC).timestamp() * 1000)),
        }
    )


async def read_rate_limit(request: web.Request) -> web.StreamResponse:
    """Answer what the caller has left, without taking any of it."""
    allowance = request.app[LIMITER].look(identity_of(request).tenant.scope)
    body = {
        "limit": allowance.limit,
        "remaining": allowance.remaining,
        "reset_s": round(allowance.reset_s, 3),
    }
    return json_answer(body, headers=allowance.headers())


ROUTES = (
    Route(
        method="GET",
        path="/api/job-types",
        name="listJobTypes",
        handle=list_job_types,
        tag="catalogue",
        summary="List the job types",
        description="Each with the JSON Schema of its input, its queue, its time-out and its retry policy.",
        answers=(Answer(description="The registered types.", model=JobTypes, example=JOB_TYPES),),
    ),
    Route(
        method="GET",
        path="/api/jobs/stats",
        name="readStats",
        handle=read_stats,
        tag="catalogue",
        summary="Count the caller's jobs by state",
        answers=(Answer(description="The counts.", model=JobStats, example=STATS),),
    ),
    Route(
        method="GET",
        path="/api/rate-limit",
        name="readRateLimit",
        handle=read_rate_limit,
        tag="catalogue",
        summary="Read what may still be submitted",
        answers=(
            Answer(description="The caller's limit and what is left.", model=RateLimit, example=RATE_LIMIT),
        ),
    ),
)
