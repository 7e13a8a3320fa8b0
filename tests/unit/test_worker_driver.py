"""The driver: a coroutine under it behaves as under a plain ``await``, but for the exception of an interruption."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.support.timing import scaled
from tidings_tasks.outcomes import JobCancelled
from tidings_tasks.worker.driver import Driver


async def run(driver: Driver[Any]) -> Any:
    return await driver


def drive(coroutine: Coroutine[Any, Any, Any]) -> tuple[Driver[Any], asyncio.Task[Any]]:
    driver: Driver[Any] = Driver(coroutine, lambda: JobCancelled("stop"))
    return driver, asyncio.create_task(run(driver))


async def test_result_and_exceptions_pass_through() -> None:
    """As if the driver were not there."""

    async def add() -> int:
        await asyncio.sleep(0)
        return 3

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    assert await drive(add())[1] == 3
    with pytest.raises(KeyError):
        await drive(fail())[1]


async def test_interruption_arrives_at_the_innermost_await_as_its_reason() -> None:
    """Through calls and tasks that the coroutine awaits."""
    waiting = asyncio.Event()

    async def inner() -> None:
        waiting.set()
        await asyncio.sleep(3600)

    async def middle() -> None:
        await inner()

    driver, task = drive(middle())
    await waiting.wait()
    driver.interrupt()
    with pytest.raises(JobCancelled, match="stop"):
        await task
    assert driver.is_done


async def test_interruption_before_the_first_step_is_not_lost() -> None:
    """The coroutine begins and ends with it."""
    ran: list[bool] = []

    async def never() -> None:
        ran.append(True)

    driver, task = drive(never())
    driver.interrupt()
    with pytest.raises(JobCancelled):
        await task
    assert ran == []


async def test_interruption_after_the_end_does_nothing() -> None:
    """The task that awaited the driver goes on."""

    async def quick() -> int:
        return 1

    driver: Driver[int] = Driver(quick(), JobCancelled)

    async def outer() -> str:
        await driver
        driver.interrupt()
        await asyncio.sleep(0)
        return "unharmed"

    assert await asyncio.create_task(outer()) == "unharmed"


async def test_each_interruption_is_delivered_once() -> None:
    """A coroutine that swallows one can wait again, and be interrupted again."""
    told = 0

    async def stubborn() -> int:
        nonlocal told
        while told < 2:
            try:
                await asyncio.sleep(3600)
            except JobCancelled:
                told += 1
        await asyncio.sleep(0)
        return told

    driver, task = drive(stubborn())
    for expected in (1, 2):
        await asyncio.sleep(0)
        driver.interrupt()
        async with asyncio.timeout(scaled(5)):
            while told < expected:  # noqa: ASYNC110  # the coroutine under test has no event to give
                await asyncio.sleep(0)
    assert await task == 2


async def test_timeouts_inside_are_not_mistaken_for_an_interruption() -> None:
    """``asyncio.timeout`` cancels the same task: its cancellation stays its own, before and after one of ours."""

    async def uses_timeouts() -> list[str]:
        seen = []
        for _ in range(2):
            try:
                async with asyncio.timeout(0.005):
                    await asyncio.sleep(3600)
            except TimeoutError:
                seen.append("timeout")
            if len(seen) == 1:
                try:
                    ready.set()
                    await asyncio.sleep(3600)
                except JobCancelled:
                    seen.append("told")
        return seen

    ready = asyncio.Event()
    driver, task = drive(uses_timeouts())
    await ready.wait()
    driver.interrupt()
    assert await task == ["timeout", "told", "timeout"]


async def test_cancellation_from_outside_stays_a_plain_one() -> None:
    """Whoever else cancels the task gets what asyncio promises."""

    async def sleep() -> None:
        await asyncio.sleep(3600)

    _, task = drive(sleep())
    await asyncio.sleep(0)
    task.cancel("by hand")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert type(caught.value) is asyncio.CancelledError


async def test_abandoned_task_ends_whatever_its_coroutine_does() -> None:
    """It swallows every exception, and the task ends all the same."""

    async def deaf() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    driver, task = drive(deaf())
    await asyncio.sleep(0)
    driver.abandon()
    with pytest.raises(asyncio.CancelledError):
        await task
