"""The demo job type ``demo.steps``: as many steps, failures and crashes as asked for (contract §8).

``tidings dev``, tests and checks load this module; production never does by default.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

from pydantic import BaseModel, ConfigDict, Field

from tidings_tasks import JobContext, job

__all__ = ["DemoSteps", "StepsResult", "steps"]


class DemoSteps(BaseModel):
    """What to play."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(ge=1, le=100_000, description="How many steps; each sends one progress event.")
    delay_ms: int = Field(default=0, ge=0, le=60_000, description="The pause between two steps.")
    fail_at: int | None = Field(
        default=None, ge=1, description="The step that raises instead of progressing."
    )
    fail_times: int | None = Field(
        default=None,
        ge=0,
        description="On how many attempts, from the first, `fail_at` raises; unset: on all.",
    )
    crash_at: int | None = Field(
        default=None, ge=1, description="The step that kills its own process, on attempt 1 only."
    )
    output_every: int | None = Field(
        default=None, ge=1, description="Send an output chunk after so many steps."
    )
    payload_bytes: int = Field(
        default=0,
        ge=0,
        le=16_384,
        description="The length of the filler in each progress event's `meta.payload`.",
    )


class StepsResult(BaseModel):
    """What was played, and by which attempt."""

    steps: int
    attempt: int


# A day: the longest plays are for soak tests, which end them by cancelling. Short delays: nobody waits for a demo.
@job("demo.steps", queue="default", timeout_s=86_400, max_attempts=3, backoff_s=(0.5, 1))
async def steps(ctx: JobContext, input: DemoSteps) -> StepsResult:
    """Play ``steps`` steps, and fail, crash or fill the wire where the input says so."""
    filler = {"payload": "x" * input.payload_bytes} if input.payload_bytes else {}
    for step in range(1, input.steps + 1):
        if step > 1 and input.delay_ms:
            await asyncio.sleep(input.delay_ms / 1_000)
        if step == input.crash_at and ctx.attempt == 1:
            # What was sent may still wait in the worker's write buffer, which dies with the process.
            await ctx.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if step == input.fail_at and (input.fail_times is None or ctx.attempt <= input.fail_times):
            raise RuntimeError(f"step {step} fails on attempt {ctx.attempt}, as asked for")
        await ctx.progress(
            percent=100 * step / input.steps,
            current=step,
            total=input.steps,
            message=f"step {step} of {input.steps}",
            meta={"at_ns": time.time_ns(), **filler},
        )
        if input.output_every and step % input.output_every == 0:
            await ctx.output(f"step {step}\n")
    return StepsResult(steps=input.steps, attempt=ctx.attempt)
