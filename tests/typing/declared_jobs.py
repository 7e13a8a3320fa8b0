"""Job types as an author writes them, for mypy: what is expected is asserted, what must be an error is ignored."""

from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel

from tidings_tasks import JobContext, SyncJobContext, job
from tidings_tasks.job_type import JobType, NoInput
from tidings_tasks.registry import Registry

REGISTRY = Registry()


class Rows(BaseModel):
    rows: int


class Other(BaseModel):
    other: int


@job("async", registry=REGISTRY)
async def with_input(ctx: JobContext, input: Rows) -> dict[str, int]:
    async for n in ctx.track(range(input.rows)):
        assert_type(n, int)
    await ctx.progress(50, message=None)
    return {}


@job("sync", registry=REGISTRY)
def plain(ctx: SyncJobContext, input: Rows) -> str:
    for n in ctx.track(range(input.rows)):
        assert_type(n, int)
    ctx.progress("half")  # type: ignore[arg-type]
    return ""


@job("bare", registry=REGISTRY)
async def bare(ctx: JobContext) -> None: ...


@job("bad")  # type: ignore[arg-type]
async def no_context(rows: int) -> None: ...


def submit() -> None:
    assert_type(with_input, JobType[Rows, dict[str, int]])
    assert_type(plain, JobType[Rows, str])
    assert_type(bare, JobType[NoInput, None])
    assert_type(with_input.submit(Rows(rows=1), owner="alice"), str)
    assert_type(plain.submit_many([Rows(rows=1)]), list[str])
    with_input.submit({"rows": 1})
    bare.submit()
    with_input.submit(Other(other=1))  # type: ignore[arg-type]
    with_input.submit(Rows(rows=1), ownr="alice")  # type: ignore[call-arg]
