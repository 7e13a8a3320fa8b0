"""A first job. In this directory: ``tidings dev myapp.jobs``, then ``tidings submit report.rows --input '{"rows": 50}' --watch``."""

import asyncio

from pydantic import BaseModel

from tidings_tasks import JobContext, job


class Rows(BaseModel):
    rows: int


@job("report.rows", queue="reports", timeout_s=300, max_attempts=3, backoff_s=(10, 300))
async def rows(ctx: JobContext, input: Rows) -> dict[str, int]:
    async for number in ctx.track(range(input.rows), message="rendering"):
        await asyncio.sleep(0.1)  # your work here
        await ctx.output(f"row {number + 1}\n")
    await ctx.log("info", "done")
    return {"rows": input.rows}
