"""The job types that `tidings worker` runs for the benchmark."""

from __future__ import annotations

from pydantic import BaseModel

from tidings_tasks import JobContext, job

from . import probe

__all__ = ["Number", "SentAt", "awaited", "buffered", "noop", "pickup"]


class Number(BaseModel):
    """Which job it is."""

    n: int


class SentAt(BaseModel):
    """When the job was submitted, on the machine's monotonic clock."""

    sent_ms: float


@job("bench.noop", queue="bench")
async def noop(_: JobContext, __: Number) -> None:
    """Do nothing."""
    probe.begin()
    probe.end()


@job("bench.buffered", queue="bench")
async def buffered(ctx: JobContext, _: Number) -> None:
    """Report progress as job authors do: sent at once, in batches, without waiting for the store."""
    probe.begin()
    for number in range(1, probe.UPDATES + 1):
        await ctx.progress(100 * number / probe.UPDATES, f"step {number} of {probe.UPDATES}")
    probe.end()


@job("bench.awaited", queue="bench")
async def awaited(ctx: JobContext, _: Number) -> None:
    """Report progress, each update stored before the next."""
    probe.begin()
    for number in range(1, probe.UPDATES + 1):
        await ctx.progress(100 * number / probe.UPDATES, f"step {number} of {probe.UPDATES}")
        await ctx.flush()
    probe.end()


@job("bench.pickup", queue="bench")
async def pickup(_: JobContext, input: SentAt) -> None:
    """Note how late it begins."""
    probe.pick_up(input.sent_ms)
