"""A call of a plain Dramatiq actor, with the broker's middleware around it as the stock worker has it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

from dramatiq import Actor
from dramatiq.middleware import SkipMessage

from ..attempt import Attempt, StopReason
from ..queue.broker import TidingsBroker
from ..queue.messages import AttemptMessage, message_of
from ..queue.middleware import native_coroutine
from ..queue.policy import Verdict, judge_error
from ..store import Verb
from .calls import log_error
from .driver import Driver

__all__ = ["AsyncActorCall", "SyncActorCall", "plan_actor_call"]

_log = logging.getLogger(__name__)


def plan_actor_call(attempt: Attempt, broker: TidingsBroker) -> AsyncActorCall | SyncActorCall:
    """Find the actor of an attempt.

    Raises:
        ActorNotFound: it is not declared in this process.
    """
    actor = broker.get_actor(attempt.spec.type)
    message = AttemptMessage(message_of(attempt, attempt.job_id), attempt)
    fn = native_coroutine(actor)
    return SyncActorCall(message, actor, broker) if fn is None else AsyncActorCall(message, fn, broker)


class SyncActorCall:
    """A call of a plain actor, on a thread with its middleware."""

    def __init__(self, message: AttemptMessage, actor: Actor[..., Any], broker: TidingsBroker) -> None:
        self._message, self._actor, self._broker = message, actor, broker

    def run(self) -> Verdict:
        """Call the actor; every outcome is a verdict."""
        message, broker = self._message, self._broker
        try:
            broker.emit_before("process_message", message)
            result = None if message.failed else self._actor(*message.args, **message.kwargs)
            broker.emit_after("process_message", message, result=result)
        except SkipMessage:
            broker.emit_after("skip_message", message)
        except BaseException as error:
            _fail(broker, message, error)
        return _verdict(message)


class AsyncActorCall:
    """A call of an ``async`` actor, as a task. What middleware does afterwards may block, and runs on a thread."""

    def __init__(self, message: AttemptMessage, fn: Any, broker: TidingsBroker) -> None:
        self._message, self._fn, self._broker = message, fn, broker
        self._driver: Driver[Any] | None = None
        self._is_asked = False
        self.context = contextvars.copy_context()

    @property
    def cpu_s(self) -> float:
        """CPU time that the actor has used."""
        return 0.0 if self._driver is None else self._driver.cpu_ns / 1e9

    async def run(self) -> Verdict:
        """Call the actor; every outcome is a verdict. Await it once."""
        message, broker = self._message, self._broker
        try:
            broker.emit_before("process_message", message)
            result = None if message.failed else await self._drive()
        except SkipMessage:
            broker.emit_after("skip_message", message)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            await asyncio.to_thread(_fail, broker, message, error)
        else:
            await asyncio.to_thread(broker.emit_after, "process_message", message, result=result)
        return _verdict(message)

    async def _drive(self) -> Any:
        self._driver = Driver(
            self._fn(*self._message.args, **self._message.kwargs), self._message.attempt.error
        )
        if self._is_asked:
            self._driver.interrupt()
        return await self._driver

    def interrupt(self) -> None:
        """Raise the attempt's reason to stop where the actor waits."""
        self._is_asked = True
        if self._driver is not None:
            self._driver.interrupt()

    def abandon(self) -> None:
        """End the task without the actor."""
        if self._driver is not None:
            self._driver.abandon()


def _fail(broker: TidingsBroker, message: AttemptMessage, error: BaseException) -> None:
    log_error(message.attempt, error)
    if message.attempt.stop in (StopReason.HANDED_BACK, StopReason.LOST):
        # The actor has not failed, it will run again: Callbacks are not to hear of it.
        message.verdict = judge_error(message.attempt, error)
        broker.emit_after("skip_message", message)
        return
    message.stuff_exception(error)
    broker.emit_after("process_message", message, exception=error)
    if message.verdict is None:
        message.verdict = judge_error(message.attempt, error)
    # The exception holds the actor's frames.
    message.clear_exception()


def _verdict(message: AttemptMessage) -> Verdict:
    return message.verdict or Verdict(Verb.COMPLETE, b"null")
