"""The event loop of async actors under the stock worker, on a machine that is too busy for Dramatiq's one second."""

from __future__ import annotations

import logging
import threading

import dramatiq.asyncio
import pytest
from dramatiq.asyncio import EventLoopThread, get_event_loop_thread, set_event_loop_thread
from dramatiq.middleware import AsyncIO

from tidings_tasks.queue.broker import TidingsBroker
from tidings_tasks.queue.event_loop import PatientAsyncIO

_SLOW_START_S = 1.2


def test_a_loop_that_starts_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dramatiq gives up after a second, and leaves a thread that nobody ends; ours runs, and ends."""
    run = EventLoopThread.run

    def run_late(self: EventLoopThread) -> None:
        threading.Event().wait(_SLOW_START_S)
        run(self)

    monkeypatch.setattr(dramatiq.asyncio.EventLoopThread, "run", run_late)
    middleware = PatientAsyncIO()
    middleware.before_worker_boot(None, None)
    thread = get_event_loop_thread()
    assert thread is not None
    assert thread.daemon
    middleware.after_worker_shutdown(None, None)
    assert not thread.is_alive()
    assert get_event_loop_thread() is None


def test_a_loop_that_never_was_does_not_fail_the_shutdown() -> None:
    """The worker's end has other things to do behind it."""
    set_event_loop_thread(None)
    PatientAsyncIO().after_worker_shutdown(None, None)


def test_it_takes_the_place_of_dramatiqs(caplog: pytest.LogCaptureFixture) -> None:
    """Whichever way an AsyncIO gets to the broker, there is one, and it is ours; there is nothing to say about it."""
    with caplog.at_level(logging.WARNING):
        broker = TidingsBroker("redis://localhost:1", middleware=[AsyncIO()])
        broker.add_middleware(AsyncIO())
    assert [type(m).__name__ for m in broker.middleware] == ["PatientAsyncIO", "Policy"]
    assert not caplog.records
    broker.close()
