"""The demo job plays exactly what it is asked for (contract §8)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from tests.unit.recorded_context import RecordedContext
from tidings.protocol.errors import InvalidInput
from tidings_tasks.demo import DemoSteps, StepsResult, steps


async def play(ctx: RecordedContext, **asked: int) -> StepsResult:
    """Run the function with a validated input."""
    result: StepsResult = await steps(ctx.as_context(), DemoSteps.model_validate(asked))
    return result


async def test_each_step_is_one_progress_event_with_the_time_it_was_sent() -> None:
    """``current``, ``total``, ``percent`` and ``meta.at_ns``, in order; nothing else is sent."""
    ctx, before_ns = RecordedContext(attempt=3), time.time_ns()
    assert await play(ctx, steps=4) == StepsResult(steps=4, attempt=3)
    sent = ctx.named("progress")
    assert len(ctx.calls) == len(sent) == 4
    assert [(it["current"], it["total"], it["percent"]) for it in sent] == [
        (1, 4, 25),
        (2, 4, 50),
        (3, 4, 75),
        (4, 4, 100),
    ]
    times_ns = [it["meta"]["at_ns"] for it in sent]
    assert before_ns <= times_ns[0]
    assert times_ns == sorted(times_ns)
    assert times_ns[-1] <= time.time_ns()


async def test_output_comes_every_so_many_steps() -> None:
    """After step 2 and step 4 of 5, right behind their progress."""
    ctx = RecordedContext()
    await play(ctx, steps=5, output_every=2)
    assert [name for name, _ in ctx.calls] == [
        "progress",
        "progress",
        "output",
        "progress",
        "progress",
        "output",
        "progress",
    ]
    assert [it["chunk"] for it in ctx.named("output")] == ["step 2\n", "step 4\n"]


async def test_the_payload_fills_each_progress_event() -> None:
    """``payload_bytes`` is the length of ``meta.payload``; without it the event stays small."""
    ctx = RecordedContext()
    await play(ctx, steps=2, payload_bytes=1_234)
    assert [len(it["meta"]["payload"].encode()) for it in ctx.named("progress")] == [1_234, 1_234]
    ctx = RecordedContext()
    await play(ctx, steps=1)
    assert set(ctx.named("progress")[0]["meta"]) == {"at_ns"}


@pytest.mark.parametrize(("fail_times", "failing"), [(None, [1, 2, 3, 9]), (2, [1, 2]), (0, [])])
async def test_it_fails_on_the_first_attempts_or_always(fail_times: int | None, failing: list[int]) -> None:
    """``fail_times`` counts attempts; left out, each one fails, and the failing step reports no progress."""
    asked = {"steps": 3, "fail_at": 2} | ({} if fail_times is None else {"fail_times": fail_times})
    for attempt in (1, 2, 3, 9):
        ctx = RecordedContext(attempt)
        if attempt in failing:
            with pytest.raises(RuntimeError, match=f"step 2 fails on attempt {attempt}"):
                await play(ctx, **asked)
            assert len(ctx.named("progress")) == 1
        else:
            assert (await play(ctx, **asked)).attempt == attempt


async def test_the_delay_lies_between_steps() -> None:
    """Three steps have two pauses."""
    started_s = time.monotonic()
    await play(RecordedContext(), steps=3, delay_ms=30)
    assert time.monotonic() - started_s >= 0.06
    started_s = time.monotonic()
    await play(RecordedContext(), steps=1, delay_ms=60_000)
    assert time.monotonic() - started_s < 30


def test_a_crash_kills_its_own_process_once_what_was_sent_is_stored() -> None:
    """SIGKILL at the step on attempt 1, after a flush; attempt 2 plays to the end."""
    script = (
        "import asyncio, sys\n"
        "from tests.unit.recorded_context import RecordedContext\n"
        "from tidings_tasks.demo import DemoSteps, steps\n"
        "ctx = RecordedContext(int(sys.argv[1]), on_call=lambda call: print(call[0], flush=True))\n"
        "asyncio.run(steps(ctx.as_context(), DemoSteps(steps=3, crash_at=3)))\n"
    )

    def run(attempt: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, str(attempt)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    crashed = run(1)
    assert crashed.returncode == -signal.SIGKILL, crashed.stderr
    assert crashed.stdout.split() == ["progress", "progress", "flush"]
    second = run(2)
    assert (second.returncode, second.stdout.split()) == (0, ["progress"] * 3), second.stderr


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"steps": 0},
        {"steps": 100_001},
        {"steps": 1, "delay_ms": 60_001},
        {"steps": 1, "delay_ms": -1},
        {"steps": 1, "payload_bytes": 16_385},
        {"steps": 1, "fail_at": 0},
        {"steps": 1, "output_every": 0},
        {"steps": 1, "unknown": 1},
    ],
)
def test_what_is_out_of_range_is_refused(asked: dict[str, int]) -> None:
    """The bounds are the contract's."""
    with pytest.raises(InvalidInput):
        steps.validate_input(asked)


@pytest.mark.parametrize(
    "asked", [{"steps": 100_000, "delay_ms": 60_000}, {"steps": 1, "payload_bytes": 16_384}]
)
def test_the_bounds_themselves_are_allowed(asked: dict[str, int]) -> None:
    """The largest values of the contract pass."""
    steps.validate_input(asked)
