"""The jobs that the chaos plays: each output says which attempt wrote it, so that a stale write gives itself away."""

from __future__ import annotations

import asyncio
import time

from pydantic import BaseModel, Field

from tidings_tasks import JobContext, SyncJobContext, job

__all__ = ["QUEUE", "Play", "hasty", "plain", "play"]

QUEUE = "chaos"
_BACKOFF_S = (0.2, 0.4)


class Play(BaseModel):
    """What to play. ``key`` is the submission's idempotency key, found again in the job's input."""

    key: str
    steps: int = Field(ge=1, le=1000)
    delay_ms: int = Field(ge=0, le=10_000)
    fail_times: int = 0
    """On how many attempts, from the first, it raises half-way."""


@job("chaos.play", queue=QUEUE, timeout_s=60, max_attempts=8, backoff_s=_BACKOFF_S)
async def play(ctx: JobContext, input: Play) -> dict[str, int]:
    """Play on the loop."""
    for n in range(1, input.steps + 1):
        await asyncio.sleep(input.delay_ms / 1000)
        if n > input.steps // 2 and ctx.attempt <= input.fail_times:
            raise RuntimeError(f"attempt {ctx.attempt} fails, as asked for")
        await ctx.output({"attempt": ctx.attempt, "n": n})
        await ctx.progress(current=n, total=input.steps, meta={"attempt": ctx.attempt})
    return {"attempt": ctx.attempt, "n": input.steps}


@job("chaos.plain", queue=QUEUE, timeout_s=60, max_attempts=8, backoff_s=_BACKOFF_S)
def plain(ctx: SyncJobContext, input: Play) -> dict[str, int]:
    """Play on a thread."""
    for n in range(1, input.steps + 1):
        time.sleep(input.delay_ms / 1000)
        if n > input.steps // 2 and ctx.attempt <= input.fail_times:
            raise RuntimeError(f"attempt {ctx.attempt} fails, as asked for")
        ctx.output({"attempt": ctx.attempt, "n": n})
    return {"attempt": ctx.attempt, "n": input.steps}


@job("chaos.hasty", queue=QUEUE, timeout_s=0.8, max_attempts=8, backoff_s=_BACKOFF_S)
async def hasty(ctx: JobContext, input: Play) -> dict[str, int]:
    """Run out of time on the first attempts."""
    for n in range(1, input.steps + 1):
        await ctx.output({"attempt": ctx.attempt, "n": n})
        if n > input.steps // 2 and ctx.attempt <= input.fail_times:
            await asyncio.sleep(3600)
    return {"attempt": ctx.attempt, "n": input.steps}
