"""Our policy as Dramatiq middleware: it decides how an attempt ends; the finish itself is one write of the store.

Dramatiq's Retries enqueue the next attempt before the failed one is acknowledged, from the memory of the worker. Here
the decision travels with the acknowledgement, so no failure of the connection can lose a retry.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.asyncio import async_to_sync
from dramatiq.common import iter_queue
from dramatiq.errors import ActorNotFound
from dramatiq.middleware import Middleware, Shutdown, SkipMessage, TimeLimitExceeded
from pydantic import TypeAdapter

from tidings.protocol.errors import InvalidInput

from ..attempt import Attempt
from ..context import CURRENT, JobContext, SyncJobContext
from ..job_type import InvalidResult
from ..outcomes import Fail, JobStopped, Retry
from ..store import Tenant, Verb
from .actor_options import ACTOR_OPTIONS
from .messages import AttemptMessage
from .policy import (
    Verdict,
    describe,
    fail_for_good,
    judge_error,
    judge_failure,
    judge_refusal,
    judge_result,
    judge_timeout,
    text_of,
)

if TYPE_CHECKING:
    from .broker import TidingsBroker

__all__ = ["FOLLOWED", "Policy", "native_coroutine"]

_log = logging.getLogger(__name__)

FOLLOWED: ContextVar[Tenant | None] = ContextVar("tidings_followed_tenant", default=None)
"""Whose job has just ended here: messages that Pipelines and Callbacks send for it are theirs too."""

_ANY: TypeAdapter[Any] = TypeAdapter(Any)
_BEGIN_S, _LOOK_S = 5.0, 0.005


async def _probe() -> None: ...


_BRIDGE = async_to_sync(_probe).__code__


def native_coroutine(actor: dramatiq.Actor[..., Any]) -> Any:
    """Return the ``async`` function of an actor, from behind Dramatiq's bridge; None when it is a plain one."""
    fn: Any = actor.fn
    return fn.__wrapped__ if getattr(fn, "__code__", None) is _BRIDGE else None


def _let_begin(threads: Sequence[Any]) -> None:
    # Each says by itself that it runs; one that is told to stop before that would run for ever.
    give_up = time.monotonic() + _BEGIN_S
    while any(t.is_alive() and not t.running for t in threads) and time.monotonic() < give_up:
        time.sleep(_LOOK_S)


class Policy(Middleware):
    """Stands in for Retries, TimeLimit and AgeLimit, whose options it takes."""

    @property
    def actor_options(self) -> set[str]:
        """The options of the three, with their meaning."""
        return set(ACTOR_OPTIONS)

    def before_worker_boot(self, broker: Any, worker: Any) -> None:
        """Let the stock worker run job types too: their jobs are in the same queues as the actors'."""
        if isinstance(worker, dramatiq.Worker):
            broker.declare_jobs()

    def before_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """Have the stock worker claim no more, and hand back what it has claimed and not begun."""
        if isinstance(worker, dramatiq.Worker):
            _let_begin([*worker.workers, *worker.consumers.values()])
            broker.stop_claiming()
            # Dramatiq does so too, but only when the last running actor has ended, which may take minutes.
            for item in iter_queue(worker.work_queue):  # type: ignore[no-untyped-call]  # Dramatiq's own
                worker.consumers[item.message.queue_name].requeue_messages([item.message])

    def after_worker_shutdown(self, broker: Any, worker: Any) -> None:
        """Write what the stock worker's threads have acknowledged, before the process ends."""
        if isinstance(worker, dramatiq.Worker):
            broker.close()

    def before_process_message(self, broker: Any, message: Any) -> None:
        """Give the actor its context, unless the message is too old or its input not valid any more."""
        if not isinstance(message, AttemptMessage):
            return
        FOLLOWED.set(None)
        actor = broker.get_actor(message.actor_name)
        max_age = message.options.get("max_age") or actor.options.get("max_age", broker.defaults.max_age)
        if max_age and time.time() * 1000 - message.message_timestamp >= max_age:
            text = f"the message is older than {max_age / 1000:g} s"
            self._refuse(message, fail_for_good(describe("expired", "AgeLimit", text)))
        job_type = broker.job_types.get(message.actor_name)
        if job_type is not None:
            try:
                message.attempt.check_input()
                job_type.validate_input(message.attempt.spec.input)
            except InvalidInput as error:
                self._refuse(message, judge_refusal(message.attempt, error))
        is_async = native_coroutine(actor) is not None
        CURRENT.set(JobContext(message.attempt) if is_async else SyncJobContext(message.attempt))
        if message.time_limits is not None:
            message.time_limits.begin(message.attempt, is_async=is_async)

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Decide how the attempt ends."""
        if not isinstance(message, AttemptMessage):
            return
        message.end_time()
        CURRENT.set(None)
        FOLLOWED.set(message.attempt.spec.tenant)
        if exception is None:
            message.verdict = self._judge_result(broker, message, result)
        else:
            message.verdict = self._judge_error(broker, message, exception)
        if message.verdict.verb is Verb.FAIL:
            message.fail()

    def after_skip_message(self, broker: Any, message: Any) -> None:
        """Forget the context of a message that is not processed."""
        if isinstance(message, AttemptMessage):
            message.end_time()
            CURRENT.set(None)
            # Who skips a message that has not failed is done with it.
            message.verdict = message.verdict or Verdict(Verb.COMPLETE, b"null")

    def _refuse(self, message: AttemptMessage, verdict: Verdict) -> None:
        message.verdict = verdict
        message.fail()
        raise SkipMessage(verdict.data.decode())

    def _judge_result(self, broker: TidingsBroker, message: AttemptMessage, result: Any) -> Verdict:
        job_type = broker.job_types.get(message.actor_name)
        if job_type is not None:
            try:
                return judge_result(job_type.dump_result(result), broker.settings.max_result_bytes)
            except InvalidResult as error:
                return judge_error(message.attempt, error)
        # To Dramatiq a result is the business of its Results middleware: ours must not fail an actor that works.
        try:
            data = _ANY.dump_json(result)
        except ValueError as error:
            _log.warning("the result of %s is not kept, it is no JSON: %s", message.actor_name, error)
            data = b"null"
        if len(data) > broker.settings.max_result_bytes:
            _log.warning("the result of %s is not kept: %d bytes", message.actor_name, len(data))
            data = b"null"
        return Verdict(Verb.COMPLETE, data)

    def _judge_error(self, broker: TidingsBroker, message: AttemptMessage, error: BaseException) -> Verdict:
        attempt = message.attempt
        if isinstance(error, ActorNotFound):
            return judge_failure(attempt, describe("unknown_job_type", type(error).__name__, str(error)))
        if attempt.stop is not None or isinstance(error, Fail | Retry | JobStopped):
            return judge_error(attempt, error)
        if isinstance(error, TimeLimitExceeded):
            return judge_timeout(attempt)
        if isinstance(error, Shutdown):
            return Verdict(Verb.RELEASE, b"null")
        actor = broker.get_actor(message.actor_name)
        kind = type(error).__name__
        described = describe("exception", kind, text_of(error))
        throws = message.options.get("throws") or actor.options.get("throws")
        if throws and isinstance(error, throws):
            return fail_for_good(described, dead=False)
        verdict = self._judge_by_predicate(broker, actor, attempt, error, described)
        if verdict.verb is Verb.FAIL:
            self._tell_exhausted(broker, actor, message)
        return verdict

    def _judge_by_predicate(
        self,
        broker: TidingsBroker,
        actor: dramatiq.Actor[..., Any],
        attempt: Attempt,
        error: BaseException,
        described: bytes,
    ) -> Verdict:
        delay_s = None
        if isinstance(error, dramatiq.Retry) and error.delay is not None:
            delay_s = error.delay / 1000
        retry_when = actor.options.get("retry_when", broker.defaults.retry_when)
        if retry_when is None:
            return judge_failure(attempt, described, delay_s=delay_s, exception=error)
        if not retry_when(attempt.tries, error):
            return fail_for_good(described, exception=error)
        return judge_failure(attempt, described, delay_s=delay_s, is_unbounded=True, exception=error)

    def _tell_exhausted(
        self, broker: TidingsBroker, actor: dramatiq.Actor[..., Any], message: AttemptMessage
    ) -> None:
        name = message.options.get("on_retry_exhausted") or actor.options.get("on_retry_exhausted")
        if name:
            counts = {"retries": message.attempt.tries, "max_retries": message.attempt.spec.max_attempts - 1}
            broker.get_actor(name).send(message.asdict(), counts)
