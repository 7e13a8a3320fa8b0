"""The stock worker's clock: it interrupts an actor that runs too long, and nobody else."""

from __future__ import annotations

import threading
import time
from typing import Any, cast

import pytest
from dramatiq.middleware import TimeLimitExceeded

from tests.support.timing import eventually_sync, scaled
from tidings_tasks.attempt import Attempt, StopReason
from tidings_tasks.queue import time_limits
from tidings_tasks.queue.time_limits import RUNNING, TimeLimits, ends_its_time


class StubSpec:
    timeout_s = 0.0


class StubAttempt:
    """What the clock needs of an attempt; the real one needs a claim and an outbox."""

    def __init__(self) -> None:
        self.spec = StubSpec()
        self.stop: StopReason | None = None

    def ask_to_stop(self, reason: StopReason) -> None:
        self.stop = reason


def make_attempt() -> Attempt:
    return cast("Attempt", StubAttempt())


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limits, "_CONTEXT_CALL_S", 0.0)


def test_a_late_actor_is_told_first_and_interrupted_then() -> None:
    """Its context tells it at its next call; the exception comes when it makes none."""
    limits, attempt, begun, seen = TimeLimits(lambda: None), make_attempt(), threading.Event(), []

    def act() -> None:
        limits.begin(attempt)
        begun.set()
        try:
            while True:
                time.sleep(0.001)
        except TimeLimitExceeded:
            seen.append("interrupted")
        finally:
            limits.end(attempt)

    thread = threading.Thread(target=act)
    thread.start()
    assert begun.wait(scaled(5))
    limits.interrupt_late()
    assert attempt.stop is StopReason.TIMED_OUT
    assert thread.is_alive()
    limits.interrupt_late()
    thread.join(scaled(5))
    assert seen == ["interrupted"]
    assert limits.next_due() is None


def test_an_actor_that_ended_is_not_interrupted() -> None:
    """Once its time has ended nothing is raised in its thread, which runs other actors by then."""
    limits, attempt, ended, release = (
        TimeLimits(lambda: None),
        make_attempt(),
        threading.Event(),
        threading.Event(),
    )
    failures: list[BaseException] = []

    def act() -> None:
        try:
            limits.begin(attempt)
            limits.end(attempt)
            ended.set()
            release.wait(scaled(5))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    assert ended.wait(scaled(5))
    for _ in range(3):
        limits.interrupt_late()
    release.set()
    thread.join(scaled(5))
    assert failures == []


def test_an_interrupt_at_the_last_moment_does_not_get_out() -> None:
    """The exception and the actor's end cross each other many times; the code behind the end never sees it."""
    limits, stopped, escaped, rounds = TimeLimits(lambda: None), threading.Event(), [], 0

    def act() -> None:
        nonlocal rounds
        while not stopped.is_set():
            attempt = make_attempt()
            try:
                limits.begin(attempt)
                sum(range(500))
            except TimeLimitExceeded:
                pass
            try:
                limits.end(attempt)
                rounds += 1
                sum(range(500))
            except TimeLimitExceeded as error:
                escaped.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    eventually_sync(lambda: limits.interrupt_late() or rounds > 3000, 20)
    stopped.set()
    thread.join(scaled(5))
    assert escaped == []


def test_the_clock_asks_to_be_looked_at(monkeypatch: Any) -> None:
    """Whoever waits for the next moment learns that there is an earlier one."""
    woken: list[None] = []
    limits, attempt = TimeLimits(lambda: woken.append(None)), make_attempt()
    before = time.monotonic()
    limits.begin(attempt)
    assert woken
    due = limits.next_due()
    assert due is not None
    assert before <= due <= time.monotonic()


def test_a_plain_actors_time_ends_within_its_own_call() -> None:
    """However it ends; what runs behind it in the thread is never interrupted."""
    limits, attempt = TimeLimits(lambda: None), make_attempt()
    limits.begin(attempt)
    try:
        assert ends_its_time(lambda n: n + 1)(1) == 2
        assert limits.next_due() is None
        limits.begin(attempt)
        with pytest.raises(ZeroDivisionError):
            ends_its_time(lambda: 1 / 0)()
        assert limits.next_due() is None
    finally:
        RUNNING.set(None)


def test_an_async_actor_is_interrupted_on_its_loop() -> None:
    """Once when it is asked to stop, and once more at its time limit; no exception is raised in its thread."""
    limits, attempt, calls = TimeLimits(lambda: None), make_attempt(), []
    limits.begin(attempt, is_async=True)
    RUNNING.set(None)
    limits.cut_short(attempt)  # its loop has not come to it yet
    limits.set_interrupt(attempt, lambda: calls.append("interrupted"))
    limits.cut_short(attempt)
    limits.cut_short(attempt)
    assert len(calls) == 1
    limits.interrupt_late()
    assert len(calls) == 2
    assert limits.next_due() is None
